"""Open files: several hundred shards and pieces are read by a process that may open fewer."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from common.compute.open_files import files_left, raise_open_file_limit
from datamodules.curation.deduplication.external_sort import write_piece
from tests.helpers.corpus import ROOT

COUNT, LIMIT = 300, 200

READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
import numpy as np
from datamodules.curation.deduplication.external_sort import in_key_ranges
from datamodules.curation.passes.deduplicate import _read
from datamodules.mixing.windows import WindowedSource
from datamodules.shards.format import Shard, ShardRecord

folder, count = Path(sys.argv[1]), {count}
documents, tokens = [40000, 40000] + [2] * (count - 2), [40000, 40000] + [80] * (count - 2)
shards = [
    Shard(folder, ShardRecord(f"train-a-{{i:05}}", "train", "a", documents[i], tokens[i], 0, {{}}), 1000)
    for i in range(count)
]
source = WindowedSource(shards, 10)
for index in np.random.default_rng(0).permutation(len(source))[:4000].tolist() + [len(source) - 1]:
    tokens, _, ids = source.window(index)
    assert tokens.tolist() == [(index * 10 + i) % 1000 for i in range(11)], index
pieces = [folder / f"{{i}}.lines.npy" for i in range(count)]
found = np.concatenate(list(in_key_ranges(pieces, 500)), axis=1)
assert sorted(found[0].tolist()) == sorted([*range(count), *range(count)])
assert (found[1] == found[0] + 1).all()
assert not list(folder.glob(".merged*"))
rows = _read([folder / f"{{i}}.parquet" for i in range(count)], 1)
assert rows.tolist() == [i + 1 for i in range(count) for _ in range(2)]
print("read")
"""


def test_hundreds_of_shards_and_pieces_are_read_with_few_open_files(tmp_path: Path) -> None:
    start = 0
    for number in range(COUNT):
        tokens = 40000 if number < 2 else 80  # two whose arrays are too large to be kept in memory
        documents = tokens if number < 2 else 2
        name = f"train-a-{number:05}"
        ((start + np.arange(tokens)) % 1000).astype("<u2").tofile(tmp_path / f"{name}.tokens")
        np.save(tmp_path / f"{name}.offsets.npy", np.linspace(0, tokens, documents + 1).astype(np.int64))
        np.save(tmp_path / f"{name}.ids.npy", np.arange(documents, dtype=np.uint64))
        start += tokens
        keys = np.array([number, number], dtype=np.uint64)
        write_piece(tmp_path / f"{number}.lines.npy", 2, [(keys, keys + np.uint64(1))])
        np.save(tmp_path / f"{number}.keys.npy", np.stack([keys, keys + np.uint64(1)]))
    script = READ.format(limit=LIMIT, count=COUNT)
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "read", run.stderr[-2000:]


def test_the_soft_limit_is_raised_and_caches_get_half_of_what_is_left() -> None:
    script = (
        "import resource; hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "from common.compute.open_files import raise_open_file_limit\n"
        "print(raise_open_file_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert raise_open_file_limit() >= min(before, 1024)
    assert 16 <= files_left() <= raise_open_file_limit() // 2
