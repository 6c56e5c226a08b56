"""Tokenization of documents into shards, one task per file of documents.

A task streams its file, writes its shards and last a record of them; a run killed anywhere repeats only the tasks
without a record. Daft spreads tasks over cores or a cluster; shards are named after the file's number, so the result
does not depend on the order of tasks. The price is a shard for every file, source and split.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")

import daft
import pyarrow.compute
import pyarrow.parquet
from daft import DataType, Series, col
from tqdm import tqdm

from common.compute.daft_engine import use_engine
from common.errors import InputError
from common.files import write_atomically
from datamodules.shards.format import ShardRecord, ShardWriter, write_manifest
from datamodules.shards.parquet_tokens import TokenFile
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer

BATCH_BYTES = 2**22
"""Text encoded at a time: what is held of a file."""

RECORDS = "records"
OUTCOME = {"number": DataType.int64(), "mistake": DataType.string()}


@dataclass(frozen=True)
class DocumentFile:
    """A file of curated documents, with the columns id, source, split, bytes and text."""

    path: Path
    size: int

    def write(self, folder: Path, number: int, tokenizer: Tokenizer) -> list[ShardRecord]:
        """Write its shards and return their records."""
        writers: dict[tuple[str, str], ShardWriter] = {}
        for batch in read_batches(self.path, ["id", "source", "split", "text"]):
            splits, sources = batch["split"].to_pylist(), batch["source"].to_pylist()
            for split, source in sorted({*zip(splits, sources, strict=True)}):
                own = batch.filter(
                    pyarrow.compute.and_(
                        pyarrow.compute.equal(batch["split"], split), pyarrow.compute.equal(batch["source"], source)
                    )
                )
                if (split, source) not in writers:
                    writers[split, source] = ShardWriter(folder, split, source, tokenizer, number)
                writers[split, source].write_texts(own["id"].to_numpy(), own["text"])
        for writer in writers.values():
            writer.close()
        return [record for key in sorted(writers) for record in writers[key].records]


def read_batches(path: Path, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """Batches of a file of documents in order, of about `BATCH_BYTES` whatever the length of documents."""
    with pyarrow.parquet.ParquetFile(path) as file:
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        rows = max(1, BATCH_BYTES * file.metadata.num_rows // max(size, 1))
        yield from file.iter_batches(min(rows, 4096), columns=columns)


def write_shards(
    files: Sequence[DocumentFile | TokenFile], into: Path, tokenizer: Path, engine: Literal["native", "ray"] = "native"
) -> None:
    """Encode every file into shards, and write their manifest.

    Args:
        files: of documents and of tokens; their order is that of the shards of a source.
        into: folder of the shards; records of files that an interrupted run finished are used.
        tokenizer: folder of the tokenizer.
        engine: what Daft runs on.

    Raises:
        InputError: for a token id that the tokenizer does not have.
    """
    use_engine(engine)
    records = into / RECORDS
    records.mkdir(exist_ok=True)
    missing = [number for number in range(len(files)) if not _record(records, number).exists()]

    @daft.func.batch(return_dtype=DataType.struct(OUTCOME), batch_size=1)
    def write(numbers: Series) -> list[dict[str, Any]]:
        return [_write_file(files[number], number, into, tokenizer) for number in numbers.to_pylist()]

    sizes = [file.size for file in files]
    done = sum(sizes) - sum(sizes[number] for number in missing)
    with tqdm(desc="tokenizing", unit="B", unit_scale=True, total=sum(sizes), initial=done) as progress:
        if missing:
            plan = daft.from_pydict({"number": missing})
            if engine == "ray":
                plan = plan.into_partitions(len(missing))
            for batch in plan.select(write(col("number")).alias("outcome")).to_arrow_iter():
                for outcome in batch["outcome"].to_pylist():
                    if outcome["mistake"] is not None:
                        raise InputError(outcome["mistake"])
                    progress.update(sizes[outcome["number"]])
    found = [
        ShardRecord(**entry)
        for number in range(len(files))
        for entry in json.loads(_record(records, number).read_text(encoding="utf-8"))
    ]
    found.sort(key=lambda record: (record.split, record.source))  # stable: files stay in order
    write_manifest(into, found, load_tokenizer(find_tokenizer(tokenizer)))
    shutil.rmtree(records)


def _write_file(file: DocumentFile | TokenFile, number: int, into: Path, folder: Path) -> dict[str, Any]:
    tokenizer = load_tokenizer(find_tokenizer(folder))
    try:
        made = file.write(into, number, tokenizer)
    except InputError as error:
        # Daft would put its own words around it.
        return {"number": number, "mistake": str(error)}
    with write_atomically(_record(into / RECORDS, number)) as partial:
        partial.write_text(json.dumps([asdict(record) for record in made]), encoding="utf-8")
    return {"number": number, "mistake": None}


def _record(records: Path, number: int) -> Path:
    return records / f"{number:05}.json"
