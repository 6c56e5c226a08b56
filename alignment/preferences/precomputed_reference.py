"""What the reference says of every pair, computed once: training then needs neither its weights nor its forward pass.

The numbers are those of the initial weights in the precision and layout of the run, stored under a fingerprint of
both and of the pairs; a start that finds them computes the first batch again and compares.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed
import xxhash
from tqdm import tqdm

from common.errors import InputError

SPLITS = ("train", "validation")
TOLERANCE = 0.05
"""Nats by which an answer's log-probability may differ between two layouts in bfloat16."""


def precompute(policy: Any) -> str:
    """Give the data the reference's log-probabilities, from disk or from the policy's present, initial weights.

    Args:
        policy: a module with `response_log_probabilities`, attached to a Trainer whose data is `PreferenceData`.

    Returns:
        The key of the reference: equal for equal weights, configuration and precision.

    Raises:
        InputError: when what is stored is not what these weights say, or the weights are no longer the initial ones.
    """
    trainer = policy.trainer
    data, strategy = trainer.datamodule, trainer.strategy
    is_initial = trainer.ckpt_path is None or strategy.restore_checkpoint_after_setup
    key = reference_key(policy)
    if strategy.broadcast(data.has_reference(key)):
        data.open_reference(key)
        if is_initial:
            _check(policy, data)
        return key
    if not is_initial:
        raise InputError(
            f"the reference's log-probabilities ({key}) are gone and the weights no longer the initial ones: "
            "restore them, or train anew with another trainer.default_root_dir"
        )
    found = {split: _all_ranks(_compute(policy, data, split)) for split in SPLITS}
    if trainer.is_global_zero:
        data.write_reference(key, found)
    strategy.barrier()
    data.open_reference(key)
    return key


def reference_key(policy: Any) -> str:
    """What the reference's log-probabilities depend on beside the pairs."""
    identity = policy.stored.identity if policy.stored is not None else policy.initial_seed
    described = json.dumps([identity, asdict(policy.config), str(policy.trainer.precision)], sort_keys=True)
    return xxhash.xxh3_64_hexdigest(described.encode())[:12]


def load_precomputed(policy: Any) -> str:
    """Give the data what training stored, where there is no training.

    Returns:
        The key of the reference.

    Raises:
        InputError: when nothing is stored for these pairs.
    """
    key, data = reference_key(policy), policy.trainer.datamodule
    if not policy.trainer.strategy.broadcast(data.has_reference(key)):
        raise InputError(
            f"reference=precomputed: nothing is stored for these pairs and this init_from ({key}); `fit` computes it, "
            "and reference=online needs none"
        )
    data.open_reference(key)
    return key


def _compute(policy: Any, data: Any, split: str) -> dict[int, list[float]]:
    """Log-probabilities of the answers of this rank's share of a split, by example number."""
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
    """Float32 [examples, answers] from every rank's share."""
    shares: list[Any] = [mine]
    if torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, mine)
    found = {number: row for share in shares for number, row in share.items()}
    return np.array([found[number] for number in range(len(found))], dtype=np.float32)


def _check(policy: Any, data: Any) -> None:
    stored = data.validation_dataset.reference
    computed = _log_probabilities(policy, next(iter(data.every_pair("validation"))))
    worst = max((abs(row - stored[number]).max() for number, row in _arrays(computed)), default=0.0)
    if not worst <= TOLERANCE:
        raise InputError(
            f"the stored log-probabilities of the reference differ by {worst:.3g} nats from what init_from says: "
            f"delete {data.reference_folder} and start again"
        )


def _arrays(rows: dict[int, list[float]]) -> list[tuple[int, np.ndarray]]:
    return [(number, np.array(row)) for number, row in rows.items()]
