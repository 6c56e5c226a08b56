"""The data order is a pure function of the sample number: checked against what it must add up to."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.constants import IGNORE
from common.errors import InputError
from datamodules.mixing.mixture import BLOCK, EvaluationOrder, Mixture, permute
from datamodules.mixing.windows import PackedWindows, WindowedSource
from datamodules.shards.format import ShardWriter, open_shards, write_manifest
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.sentencepiece import train_tokenizer
from tests.helpers.corpus import TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=320))


def write(folder: Path, tokenizer: Tokenizer, texts: list[str], shard_tokens: int = 2**27) -> None:
    writer = ShardWriter(folder, "train", "code", tokenizer, shard_tokens=shard_tokens)
    for number, text in enumerate(texts):
        writer.write_texts(np.array([100 + number], dtype=np.uint64), pyarrow.array([text]))
    writer.close()
    write_manifest(folder, writer.records, tokenizer)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 700), seed=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(length: int, seed: int) -> None:
    assert sorted(permute(i, length, seed) for i in range(length)) == list(range(length))


def test_permute_shuffles() -> None:
    order = [permute(i, 10_000, 3) for i in range(10_000)]
    assert abs(np.corrcoef(order, range(10_000))[0, 1]) < 0.05
    assert order != [permute(i, 10_000, 4) for i in range(10_000)]


def test_weights_are_kept_in_every_block_and_every_epoch_is_a_permutation() -> None:
    mixture = Mixture({"web": 50, "code": 700}, {"web": 3.0, "code": 1.0}, seed=1)
    located = [mixture.locate(i) for i in range(2 * BLOCK)]
    for block in (located[:BLOCK], located[BLOCK:]):
        assert Counter(name for name, _, _ in block) == {"web": 3 * BLOCK // 4, "code": BLOCK // 4}
    for name, size in mixture.sizes.items():
        epochs: dict[int, list[int]] = {}
        for source, epoch, window in located:
            if source == name:
                epochs.setdefault(epoch, []).append(window)
        complete = [sorted(windows) == list(range(size)) for windows in epochs.values()]
        assert all(complete[:-1])
        assert len(complete) > 1
        assert epochs[0] != epochs[1]


def test_location_does_not_depend_on_what_was_asked_before() -> None:
    samples = [5, BLOCK + 3, 0, 17 * BLOCK + 8, 5]
    sizes, weights = {"a": 10, "b": 20}, {"a": 1.0, "b": 2.0}
    shared = Mixture(sizes, weights, seed=2)
    assert [shared.locate(i) for i in samples] == [Mixture(sizes, weights, 2).locate(i) for i in samples]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    length=st.integers(2, 30),
    shard_tokens=st.integers(1, 60),
)
def test_windows_cover_every_token_once_with_its_document(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    sizes: list[int],
    length: int,
    shard_tokens: int,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    (folder / "one").mkdir()
    texts = [chr(97 + i) * size for i, size in enumerate(sizes)]
    write(folder, tokenizer, texts, shard_tokens)
    shards = list(open_shards(folder))
    tokens_of = {100 + i: [tokenizer.bos, *tokenizer.encode(t), tokenizer.eos] for i, t in enumerate(texts)}
    source = WindowedSource(shards, length, keep_partial=True)
    seen: dict[int, list[int]] = {}
    for index in range(len(source)):
        tokens, documents, ids = source.window(index)
        assert len(tokens) == len(documents) <= length + 1
        for token, document in zip(tokens[:-1], documents[:-1], strict=True):
            seen.setdefault(int(ids[document]), []).append(int(token))
    # The very last token is never an input, only a label.
    seen.setdefault(int(shards[-1].ids[-1]), []).append(int(shards[-1].tokens[-1]))
    assert seen == tokens_of
    whole = WindowedSource(shards, length)
    assert len(whole) == (sum(len(shard.tokens) for shard in shards) - 1) // length
    # How the documents are cut into shards changes no window.
    write(folder / "one", tokenizer, texts)
    one = WindowedSource(list(open_shards(folder / "one")), length)
    for index in range(len(whole)):
        assert all(np.array_equal(a, b) for a, b in zip(whole.window(index), one.window(index), strict=True))


def test_a_short_window_is_padded_where_nothing_is_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write(tmp_path, tokenizer, ["abc"])
    source = WindowedSource(list(open_shards(tmp_path)), 10, keep_partial=True)
    order = EvaluationOrder({"code": len(source)}, None)
    sample = PackedWindows({"code": source}, order.locate, tokenizer.token_bytes(), tokenizer.pad)[0]
    labels = [*tokenizer.encode("abc"), tokenizer.eos]
    assert sample["labels"].tolist() == labels + [IGNORE] * (10 - len(labels))
    assert sample["label_bytes"].sum() == 3
    assert set(sample["document_ids"][len(labels) :]) == {-1}
    assert set(sample["tokens"][len(labels) :]) == {tokenizer.pad}


@given(size=st.integers(0, 50), most=st.one_of(st.none(), st.integers(1, 60)))
def test_evenly_spread_windows_are_distinct_and_reach_both_ends(size: int, most: int | None) -> None:
    order = EvaluationOrder({"other": 3, "code": size}, most)
    windows = [order.locate(i)[2] for i in order.samples_by_source()[1]]
    assert len(set(windows)) == len(windows) == min(size, most or size)
    assert not windows or (windows[0] == 0 and (len(windows) == 1 or windows[-1] == size - 1))


def test_weights_that_cannot_work_are_refused() -> None:
    with pytest.raises(InputError, match=r"sources\.b\.weight=0"):
        Mixture({"a": 1, "b": 1}, {"a": 1.0, "b": 0.0}, 0)
    with pytest.raises(InputError, match=r"sources\.b\.weight=1e-05"):
        Mixture({"a": 1, "b": 1}, {"a": 1.0, "b": 1e-5}, 0)
    with pytest.raises(InputError, match="source b holds no whole window"):
        Mixture({"a": 1, "b": 0}, {"a": 1.0, "b": 1.0}, 0)


def test_a_damaged_or_missing_shard_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write(tmp_path, tokenizer, ["some text", "more"])
    path = tmp_path / "train-code-00000.tokens"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="train-code-00000.tokens: checksum"):
        list(open_shards(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match="train-code-00000.tokens"):
        list(open_shards(tmp_path, verify=False))
    with pytest.raises(InputError, match="prepare"):
        list(open_shards(tmp_path / "nowhere"))


def test_large_vocabularies_take_four_bytes() -> None:
    from datamodules.shards.format import token_dtype

    assert token_dtype(2**16).itemsize == 2
    assert token_dtype(2**16 + 1).itemsize == 4
