"""`evaluate`: perplexity of text and accuracy on multiple-choice questions.

It needs no configuration: a model brings its shape and its tokenizer.
"""

import functools
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from commands.mistakes import require_at_least
from common.errors import InputError
from common.path_lists import PathList, expand_pattern, path_list
from common.stored_models.names import require_stored_model

if TYPE_CHECKING:
    from datamodules.conversations.rows import Row
    from datamodules.tokenization.base import Tokenizer
    from models.decoder import Decoder


def evaluate(
    input: str,
    questions: PathList | None = None,
    text: PathList | None = None,
    output: str | None = None,
    limit: int | None = None,
    window: int = 2048,
    batch_tokens: int = 4096,
) -> None:
    """Score a model on multiple-choice questions and on text, each file by itself.

    Args:
        input: a run's folder, a checkpoint, a file that `convert` wrote, or a Hugging Face folder.
        questions: file or files of rows with HellaSwag's, ARC's or BLiMP's keys, or `context`, `choices` and `gold`.
        text: files or folders of text, by document: perplexity per token and bits per byte.
        output: JSON file for the results; they are printed anyway.
        limit: most rows or documents of each file.
        window: longest context with what is scored, in tokens.
        batch_tokens: tokens computed at once.
    """
    if not questions and not text:
        raise InputError("evaluate: name files with --questions or --text")
    require_at_least(window=(window, 2), batch_tokens=(batch_tokens, 1), limit=(limit, 1))
    require_stored_model(input, "--input")
    for option, paths in (("--questions", questions), ("--text", text)):
        for path in path_list(paths):
            if "://" not in path and not all(map(os.path.exists, expand_pattern(path))):
                raise InputError(f"{option} {path} does not exist: name a file or folder")

    from datamodules.tokenization.files import find_tokenizer, load_tokenizer
    from models.weights.load import load_decoder
    from models.weights.source import WeightSource

    stored = WeightSource(Path(input), "--input")
    tokenizer = load_tokenizer(find_tokenizer(stored.path))
    if stored.whole_config().scalar_output:
        raise InputError(f"input={input} is a reward model: `llm test` evaluates it, on pairs")
    decoder = load_decoder(stored)
    score = functools.partial(score_file, decoder, tokenizer, limit=limit, window=window, batch_tokens=batch_tokens)
    results: dict[str, Any] = {}
    for paths, is_text in ((questions, False), (text, True)):
        for path in itertools.chain.from_iterable(map(expand_pattern, path_list(paths))):
            results[path] = score(path, is_text=is_text)
    print(yaml.safe_dump(results, sort_keys=False), end="")
    if output is not None:
        Path(output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def score_file(
    decoder: "Decoder",
    tokenizer: "Tokenizer",
    path: str,
    is_text: bool,
    limit: int | None,
    window: int,
    batch_tokens: int,
) -> dict[str, Any]:
    """Results of one file; rows that are left out are counted by their reason."""
    from datamodules.conversations.messages import Unusable
    from datamodules.conversations.multiple_choice import Question, encode, question, question_batches, text_windows
    from datamodules.conversations.rows import FileRows
    from models.inference.likelihood import accuracies, log_likelihoods

    encoded: list[list[tuple[list[int], list[int]]]] = []
    asked: list[Question] = []
    bytes_in_all = 0
    left_out: Counter[str] = Counter()
    advice = ""
    found = texts(path) if is_text else FileRows([path]).rows()
    for row in itertools.islice(found, limit):
        try:
            if isinstance(row, str):
                raise Unusable(row)
            if is_text:
                ids = tokenizer.encode(row["text"])
                encoded.append(list(text_windows(ids, tokenizer.before_text, window - 1)))
                bytes_in_all += len(row["text"].encode())
            else:
                one = question(row)
                encoded.append(encode(one, tokenizer))
                asked.append(one)
        except Unusable as reason:
            left_out[str(reason)] += 1
            advice = advice or reason.advice
    if not encoded:
        advice = advice or "see `evaluate --help`"
        raise InputError(f"{path} holds nothing to score ({dict(left_out) or 'it is empty'}): {advice}")
    answers = sum(map(len, encoded))
    likelihoods = log_likelihoods(decoder, question_batches(encoded, batch_tokens, tokenizer.pad, window), answers)
    if is_text:
        nats, tokens = -sum(likelihoods), sum(len(answer) for document in encoded for _, answer in document)
        scored = {"documents": len(encoded), "bits_per_byte": nats / math.log(2) / bytes_in_all}
        scored |= {"perplexity": math.exp(nats / tokens), "tokens": tokens, "bytes": bytes_in_all}
    else:
        scored = accuracies(likelihoods, [one.gold for one in asked], [one.lengths for one in asked])
    return scored | ({"left_out": dict(left_out)} if left_out else {})


def texts(path: str) -> "Iterator[Row | str]":
    """Documents of a file or folder, or the reason why one is none."""
    from datamodules.readers.files import Files

    reader = Files([path])
    for file in reader.files():
        for document in reader.read(file):
            yield {"text": document.text} if document.text else str(document.reason or "empty")
