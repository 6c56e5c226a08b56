"""Precomputed log-probabilities of the reference model for every preference pair.

Training then needs neither the reference's weights nor its forward pass, at the price of a pass over all pairs before
it. The values are those of the initial weights in the precision and layout of the run, stored under a fingerprint of
both and of the pairs; a start that finds them computes the first batch again and compares.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from tqdm import tqdm

from common.artifacts import build_artifact, verified, write_checksums
from common.constants import SPLITS
from common.contracts import StoredPairs
from common.errors import InputError
from common.fingerprint import fingerprint

TOLERANCE = 0.05
"""Nats by which a response's log-probability may differ between two layouts in bfloat16."""


class ReferenceStore:
    """Stored log-probabilities of a reference: an artifact beside the prepared pairs, one array per split.

    Args:
        data: data module of the pairs.
        key: of the reference, see `reference_key`.
    """

    def __init__(self, data: StoredPairs, key: str) -> None:
        self.root, self.name, self.key = Path(data.folder), f"reference-{data.pairs_key}", key
        self.folder = self.root / f"{self.name}-{key}"

    def exists(self) -> bool:
        """Whether these log-probabilities are stored."""
        return self.folder.is_dir()

    def write(self, log_probabilities: Mapping[str, np.ndarray]) -> None:
        """Store log-probabilities, float32 [examples, responses] by split."""

        def produce(into: Path) -> None:
            for split, values in log_probabilities.items():
                np.save(into / f"{split}.npy", values)
            write_checksums(into, *(f"{split}.npy" for split in log_probabilities))

        build_artifact(self.root, self.name, self.key, produce)

    def read(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Log-probabilities by split, mapped into memory.

        Args:
            sizes: number of pairs by split.

        Raises:
            InputError: when they are damaged or of other pairs.
        """
        found = {}
        for split in SPLITS:
            values = np.load(verified(self.folder / f"{split}.npy"), mmap_mode="r", allow_pickle=False)
            if len(values) != sizes[split]:
                raise InputError(f"{self.folder} holds {len(values)} pairs of {sizes[split]}: delete it")
            found[split] = values
        return found


def precompute(policy: Any) -> str:
    """Give the data the reference's log-probabilities, from disk or from the policy's present, initial weights.

    Args:
        policy: a module with `response_log_probabilities`, attached to a Trainer whose data is `PreferenceData`.

    Returns:
        The key of the reference: equal for equal weights, configuration and precision.

    Raises:
        InputError: when the stored values do not match these weights, or the weights are no longer the initial ones.
    """
    trainer = policy.trainer
    data, strategy = trainer.datamodule, trainer.strategy
    is_initial = trainer.ckpt_path is None or strategy.restore_checkpoint_after_setup
    key = reference_key(policy)
    store = ReferenceStore(data, key)
    is_stored = strategy.broadcast(store.exists())
    if not is_stored:
        if not is_initial:
            raise InputError(
                f"the reference's log-probabilities ({key}) are gone and the weights no longer the initial ones: "
                "restore them, or train again with another trainer.default_root_dir"
            )
        found = {split: _all_ranks(_compute(policy, data, split)) for split in SPLITS}
        if trainer.is_global_zero:
            store.write(found)
        strategy.barrier()
    values = store.read(_sizes(data))
    if is_stored and is_initial:
        _check(policy, data, values["validation"], store.folder)
    data.attach_reference(values)
    return key


def reference_key(policy: Any) -> str:
    """Key of a reference: initial weights, configuration and precision."""
    identity = policy.stored.identity if policy.stored is not None else policy.initial_seed
    return fingerprint(identity, asdict(policy.config), str(policy.trainer.precision))


def load_precomputed(policy: Any) -> str:
    """Give the data what training stored, where there is no training.

    Returns:
        The key of the reference.

    Raises:
        InputError: when nothing is stored for these pairs.
    """
    key, data = reference_key(policy), policy.trainer.datamodule
    store = ReferenceStore(data, key)
    if not policy.trainer.strategy.broadcast(store.exists()):
        raise InputError(
            f"reference=precomputed: nothing is stored for these pairs and this init_from ({key}); `fit` computes it, "
            "and reference=online needs none"
        )
    data.attach_reference(store.read(_sizes(data)))
    return key


def _sizes(data: Any) -> dict[str, int]:
    return {split: len(data.examples[split]) for split in SPLITS}


def _compute(policy: Any, data: Any, split: str) -> dict[int, list[float]]:
    """Log-probabilities of the responses of this rank's share of a split, by example number."""
    found: dict[int, list[float]] = {}
    loader = data.every_pair(split)
    for batch in tqdm(loader, desc=f"reference, {split}", unit=" batches", disable=not policy.trainer.is_global_zero):
        found |= _log_probabilities(policy, batch)
    return found


@torch.no_grad()
def _log_probabilities(policy: Any, batch: dict[str, Any]) -> dict[int, list[float]]:
    trainer = policy.trainer
    batch = trainer.strategy.batch_to_device(batch)
    with trainer.precision_plugin.val_step_context():
        responses = policy(batch, policy.response_log_probabilities)
    numbers = batch["example"].tolist()
    rows = responses.view(len(numbers), -1).tolist()
    return {number: row for number, row in zip(numbers, rows, strict=True) if number >= 0}


def _all_ranks(mine: dict[int, list[float]]) -> np.ndarray:
    """Float32 [examples, responses] from every rank's share."""
    shares: list[Any] = [mine]
    if torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, mine)
    found = {number: row for share in shares for number, row in share.items()}
    return np.array([found[number] for number in range(len(found))], dtype=np.float32)


def _check(policy: Any, data: Any, stored: np.ndarray, folder: Path) -> None:
    computed = _log_probabilities(policy, next(iter(data.every_pair("validation"))))
    worst = max((abs(row - stored[number]).max() for number, row in _arrays(computed)), default=0.0)
    if not worst <= TOLERANCE:
        raise InputError(
            f"the stored log-probabilities of the reference differ by {worst:.3g} nats from what init_from says: "
            f"delete {folder} and start again"
        )


def _arrays(rows: dict[int, list[float]]) -> list[tuple[int, np.ndarray]]:
    return [(number, np.array(row)) for number, row in rows.items()]
