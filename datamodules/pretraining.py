"""Pretraining data module: curated, tokenized, packed and mixed text.

It only composes the other modules: prepare, open shards, mix, batch. What decides the data is in them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from common.console import is_local_rank_zero
from common.errors import InputError
from common.files import checksum
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.deduplication.url import UrlDuplicates
from datamodules.curation.filters.base import CurationStep
from datamodules.curation.personal_data.mask import MaskPersonalData
from datamodules.curation.reports.explain import documents_by_id, explain, format_examples
from datamodules.curation.reports.summary import format_table
from datamodules.mixing.balance import Balance, mixture_report
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.mixing.mixture import EvaluationOrder, Mixture
from datamodules.mixing.windows import PackedWindows, WindowedSource
from datamodules.prepare import Prepared, prepare, prepare_documents, read_summary
from datamodules.resumable import DATA_STATE, ResumableDataModule
from datamodules.shards.format import MANIFEST, Shard, open_shards
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, restore


class PretrainingData(ResumableDataModule):
    """Pretraining data: collected, curated, tokenized, packed and mixed text.

    Args:
        folder: folder of prepared data; reused when the inputs and settings are the same.
        sources: name -> reader, curation steps and weight.
        tokenizer: settings of training one; or an existing one: a run, a tokenizer.model, a Hugging Face folder or its
            tokenizer.json.
        sequence_length: tokens in a training window.
        batch_size: windows in a micro-batch of one rank.
        batch_size_warmup: smaller batches at first; null for none.
        near_duplicates: near-duplicate removal over all sources; null for exact duplicates only.
        steps: filters and transforms applied to every source, after its own.
        url_duplicates: URL deduplication, which keeps the newest fetch of a page, and one of several documents of a URL
            that resemble each other, which takes near-duplicates' signatures; null keeps all.
        personal_data: personal data masking; null for none.
        engine: execution engine of curation, the cores of this machine (native) or a Ray cluster (ray); the result is
            the same.
        chunk_megabytes: size of the input files curated together, and of the text in memory at a time.
        balance: a temperature in place of weights, and caps on epochs; null for the sources' weights alone.
        validation_fraction: share of each source's bytes in the validation split.
        validation_windows: windows of each source evaluated, evenly spaced; null for all.
        seed: seed of the validation split and of the sample order.
        workers: processes that read ahead; 0 reads in the training process.
        verify: compare every shard with its checksum before training, by one process of each node.

    Raises:
        InputError: for a size that cannot work.
    """

    def __init__(
        self,
        folder: str,
        sources: dict[str, TextSource],
        tokenizer: TokenizerSettings | str,
        sequence_length: int = 512,
        batch_size: int = 8,
        batch_size_warmup: BatchSizeWarmup | None = None,
        near_duplicates: NearDuplicates | None = NearDuplicates(),
        steps: list[CurationStep] | None = None,
        url_duplicates: UrlDuplicates | None = UrlDuplicates(),
        personal_data: MaskPersonalData | None = MaskPersonalData(),
        engine: Literal["native", "ray"] = "native",
        chunk_megabytes: float = 64.0,
        balance: Balance | None = None,
        validation_fraction: float = 0.02,
        validation_windows: int | None = None,
        seed: int = 0,
        workers: int = 1,
        verify: bool = True,
    ) -> None:
        super().__init__(batch_size, workers, batch_size_warmup)
        if sequence_length < 2:
            raise InputError(f"sequence_length={sequence_length}: need at least 2 tokens")
        if validation_windows is not None and validation_windows < 1:
            raise InputError(f"validation_windows={validation_windows}: must be at least 1, or null for all")
        if not 0 < validation_fraction < 1:
            raise InputError(f"validation_fraction={validation_fraction}: must lie between 0 and 1")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed={seed}: must lie between 0 and 2^63")
        if not sources:
            raise InputError("sources is empty: name at least one source of text")
        # By name: the order of sources in YAML has no meaning.
        self.folder, self.sources = Path(folder), dict(sorted(sources.items()))
        self.tokenizer_source: TokenizerSettings | Tokenizer
        if isinstance(tokenizer, str):
            self.tokenizer_source = load_tokenizer(find_tokenizer(Path(tokenizer)))
            self.vocabulary_size = len(self.tokenizer_source)
        else:
            self.tokenizer_source, self.vocabulary_size = tokenizer, tokenizer.vocabulary_size
        self.sequence_length = sequence_length
        self.curation = CurationConfig(steps or [], url_duplicates, personal_data, engine, chunk_megabytes)
        self.near_duplicates, self.validation_fraction = near_duplicates, validation_fraction
        self.validation_windows, self.seed = validation_windows, seed
        self.verify, self.balance = verify, balance or Balance(max_epochs=None)
        self.source_names = list(self.sources)
        self.prepared: Prepared | None = None
        self.verified: Path | None = None

    def prepare_data(self) -> None:
        """Run every stage that is not on disk, and verify the shards (Lightning calls this on one process per node)."""
        shards = self.run_stages().shards
        if self.verify and self.verified != shards:
            for _ in open_shards(shards, verify=True):
                pass
            self.verified = shards

    def run_stages(self) -> Prepared:
        """Folders of the prepared data, made if they are not there."""
        if self.prepared is None:
            self.prepared = prepare(
                self.folder,
                self.sources,
                self.near_duplicates,
                self.validation_fraction,
                self.tokenizer_source,
                self.seed,
                self.curation,
            )
        return self.prepared

    def curate(self) -> Path:
        """Folder of the curated documents, made if it is not there; nothing is tokenized."""
        return prepare_documents(
            self.folder, self.sources, self.near_duplicates, self.validation_fraction, self.seed, self.curation
        )

    def explain(self, why: str) -> str:
        """Explanation of why a document was kept or dropped, by its id or path."""
        stage = self.curate()
        return explain(stage, read_summary(stage), why)

    def examples(self, reason: str | None = None, samples: int = 3) -> str:
        """Table of curation, and a few documents of each drop reason, or of one."""
        stage = self.curate()
        summary = read_summary(stage)
        shown = format_examples(stage, summary, reason, samples)
        return shown if reason else f"{format_table(summary)}{shown}"

    def summary(self) -> dict[str, Any]:
        """Counts of curation."""
        return self.run_stages().summary()

    def setup(self, stage: str) -> None:
        """Open the shards, verified by the first process of this node."""
        if is_local_rank_zero():
            self.prepare_data()  # a caller without a trainer has not
        prepared = self.run_stages()
        self.tokenizer: Tokenizer = prepared.load_tokenizer()
        shards: dict[tuple[str, str], list[Shard]] = {}
        for shard in open_shards(prepared.shards, verify=False):
            shards.setdefault((shard.record.split, shard.record.source), []).append(shard)
        token_bytes, pad = self.tokenizer.token_bytes(), self.tokenizer.pad

        train = {name: WindowedSource(shards.get(("train", name), []), self.sequence_length) for name in self.sources}
        self.sizes = {name: len(source) for name, source in train.items()}
        self.mix([])
        self.train_windows = PackedWindows(train, self.mixture.locate, token_bytes, pad)

        validation = {
            name: WindowedSource(shards.get(("validation", name), []), self.sequence_length, keep_partial=True)
            for name in self.sources
        }
        self.validation_order = EvaluationOrder(
            {name: len(source) for name, source in validation.items()}, self.validation_windows
        )
        self.source_names = [name for name, source in validation.items() if len(source)]
        if not self.source_names:
            raise InputError(
                f"validation_fraction={self.validation_fraction} leaves no validation document: every one is related "
                "to all others or there is only one, raise it or add text"
            )
        self.validation_dataset = PackedWindows(validation, self.validation_order.locate, token_bytes, pad)

    def mix(self, history: list[dict[str, Any]]) -> None:
        """Set up the mixture: consumed samples as they were mixed, later ones as the configuration says.

        Args:
            history: from a checkpoint, by first sample: the settings of the mixture and the slots of each source.
        """
        weights, samples = {name: source.weight for name, source in self.sources.items()}, self.samples_of_run()
        settings = self.balance.settings(weights, samples)
        tokens = {name: size * self.sequence_length for name, size in self.sizes.items()}
        self.wanted = self.balance.wanted(weights, tokens)
        self.mixture = Mixture(self.sizes, self.wanted, self.seed)
        for entry in history:
            self.mixture.change(entry["first"], np.array([entry["slots"][name] for name in self.sizes]))
        if not history or history[-1]["settings"] != settings:
            first = self.consumed_samples if history else 0
            slots = self.balance.slots(self.mixture, self.wanted, first, samples)
            named = dict(zip(self.mixture.names, slots.tolist(), strict=True))
            earlier = [entry for entry in history if entry["first"] < first]
            history = [*earlier, {"first": first, "settings": settings, "slots": named}]
        self.history = history

    def mixture_report(self) -> dict[str, dict[str, float]]:
        """Requested and reached share of each source."""
        return mixture_report(self.mixture, self.wanted, self.sequence_length, self.samples_of_run())

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """An endless loader that begins at the first sample not yet consumed."""
        return self.loader(self.train_windows, self.training_batches())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Each validation window once; a batch holds one source."""
        batches = self.evaluation_batches(self.validation_order.samples_by_source())
        return self.loader(self.validation_dataset, batches)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation windows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation windows."""
        return self.val_dataloader()

    def origins(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """Source, epoch and window of each sample, and ids and paths of its documents.

        Documents of a pre-tokenized source have no path.
        """
        rows: list[dict[str, Any]] = []
        for sample in samples:
            source, epoch, window = self.mixture.locate(sample)
            ids = self.train_windows.sources[source].window(window)[2].tolist()
            rows.append({"sample": sample, "source": source, "epoch": epoch, "window": window, "documents": ids})
        stage = self.run_stages().documents
        known = documents_by_id(stage, sorted({i for row in rows for i in row["documents"]})) if stage else {}
        return [
            row
            | {
                "documents": [
                    {"id": i, "path": known.get(i, {}).get("path"), "url": known.get(i, {}).get("url")}
                    for i in row["documents"]
                ]
            }
            for row in rows
        ]

    def order(self) -> dict[str, Any]:
        """Shards and window length; the mixture may change during a run, and its history is saved.

        Shards count by their manifest, which holds the checksums of all: the same ones may have another name.
        """
        return {
            "shards": checksum(self.run_stages().shards / MANIFEST),
            "sequence_length": self.sequence_length,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """The position, and the tokenizer itself, without which the weights mean nothing."""
        return super().state_dict() | {
            "tokenizer": torch.frombuffer(bytearray(self.tokenizer.model), dtype=torch.uint8),
            "mixture": self.history,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stopped, with other weights if the configuration has others now."""
        super().load_state_dict(state_dict)
        self.mix(state_dict["mixture"])
        self.train_windows.locate = self.mixture.locate

    def tokenizer_of(self, checkpoint: dict[str, Any]) -> Tokenizer:
        """The tokenizer a checkpoint was trained with, also where the data is gone."""
        return restore(bytes(checkpoint[DATA_STATE]["tokenizer"].tolist()))
