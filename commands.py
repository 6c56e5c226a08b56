"""Commands on a finished model: convert and evaluate need no configuration, it brings its shape and its tokenizer.

Beside `main.py` because they join what the packages may not know of each other: tokenizers, stored weights, decoders.
"""

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml

from datamodules.chat import read_template
from datamodules.conversations import Unusable
from datamodules.questions import Question, encode, question, question_batches, text_windows
from datamodules.readers import Files
from datamodules.rows import FileRows, Row
from datamodules.tokenizer import Tokenizer
from datamodules.tokenizer_files import (
    TEMPLATE,
    find_tokenizer,
    load_tokenizer,
    own_template,
    write_hugging_face_tokenizer,
)
from errors import InputError
from models.decoder import Decoder, materialise
from models.evaluation import accuracies, log_likelihoods
from models.hugging_face import to_hugging_face
from strategies.checkpoint import write_safetensors
from strategies.hugging_face_folder import write_hugging_face_folder
from strategies.stored_weights import StoredWeights


def convert(
    input: str,
    output: str,
    dtype: Literal["keep", "float32", "bfloat16"] = "keep",
    positions: int | None = None,
    shard_gigabytes: float = 5.0,
) -> None:
    """Convert a model, adapters merged, tokenizer and chat template with it.

    Args:
        input: a run's folder, a checkpoint of any layout, a file that this command wrote, or a Hugging Face folder.
        output: NAME.safetensors for one file of this project, with the tokenizer in files beside it; any other name
            is a folder that transformers, vLLM and their like open.
        dtype: of the tensors written.
        positions: longest text the model is meant for, which Hugging Face wants to know; by default what the input
            says, 2048 where it does not.
        shard_gigabytes: of each file in a Hugging Face folder.
    """
    if (positions is not None and positions < 1) or not shard_gigabytes > 0:
        raise InputError(f"positions={positions}, shard_gigabytes={shard_gigabytes}: must be above 0")
    target, stored = Path(output), StoredWeights(Path(input))
    if target.exists() and target.samefile(input):
        raise InputError(f"output={output}: it is the input, name another")
    config = stored.whole_config()
    with torch.device("meta"):
        sizes = [(name, parameter.shape) for name, parameter in Decoder(config).named_parameters()]
    kept = stored.merged("norm.weight").dtype
    chosen = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype, kept)
    file = find_tokenizer(stored.path)
    tokenizer, named = load_tokenizer(file), own_template(file)
    template = read_template(named) if named is not None else None
    if target.suffix == ".safetensors":
        tensors = {f"decoder.{name}": stored.merged(name).to(chosen).contiguous() for name, _ in sizes}
        write_safetensors(tensors, asdict(config), target)
        beside = target.with_suffix(".tokenizer")
        beside.mkdir(exist_ok=True)
        tokenizer.write(beside)
        if template is not None:
            (beside / TEMPLATE).write_text(template, encoding="utf-8")
    else:
        special = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
        # A padding token's embedding is never trained there: not one that is also trained as the end.
        special["pad_token_id"] = tokenizer.pad if tokenizer.pad != tokenizer.eos else None
        longest = positions or stored.positions or 2048
        described = to_hugging_face(config, longest, str(chosen).removeprefix("torch."), special)
        write_hugging_face_folder(target, config, described, sizes, stored.merged, chosen, int(shard_gigabytes * 1e9))
        write_hugging_face_tokenizer(tokenizer, template, target)
    print(f"converted: {target} ({sum(shape.numel() for _, shape in sizes) / 1e6:.1f} M parameters, {chosen})")


def evaluate(
    input: str,
    questions: list[str] | None = None,
    text: list[str] | None = None,
    output: str | None = None,
    limit: int | None = None,
    window: int = 2048,
    batch_tokens: int = 4096,
) -> None:
    """Score a model on multiple-choice questions and on text, each file by itself.

    Args:
        input: a run's folder, a checkpoint, a file that `convert` wrote, or a Hugging Face folder.
        questions: files of rows with HellaSwag's, ARC's or BLiMP's keys, or `context`, `choices` and `gold`.
        text: files or folders of text, by document: perplexity a token and bits a byte.
        output: JSON file for the results; they are printed anyway.
        limit: rows or documents of each file.
        window: longest context with what is scored.
        batch_tokens: computed at once.
    """
    if not questions and not text:
        raise InputError("evaluate: name files with --questions or --text")
    if window < 2 or batch_tokens < 1 or (limit is not None and limit < 1):
        raise InputError(f"window={window}, batch_tokens={batch_tokens}, limit={limit}: need at least 2, 1 and 1")
    stored = StoredWeights(Path(input))
    tokenizer, config = load_tokenizer(find_tokenizer(stored.path)), stored.whole_config()
    if config.scalar_output:
        raise InputError(f"input={input} is a reward model: `main.py test` evaluates it, on pairs")
    with torch.device("meta"):
        decoder = Decoder(config)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    materialise(decoder, cast(torch.device, device), 0, stored=stored.merged)
    score = functools.partial(score_file, decoder, tokenizer, limit=limit, window=window, batch_tokens=batch_tokens)
    results = {path: score(path, is_text=False) for path in questions or []}
    results |= {path: score(path, is_text=True) for path in text or []}
    print(yaml.safe_dump(results, sort_keys=False), end="")
    if output is not None:
        Path(output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def score_file(
    decoder: Decoder, tokenizer: Tokenizer, path: str, is_text: bool, limit: int | None, window: int, batch_tokens: int
) -> dict[str, Any]:
    """Results of one file; rows that are left out are counted by their reason."""
    encoded: list[list[tuple[list[int], list[int]]]] = []
    asked: list[Question] = []
    bytes_in_all = 0
    left_out: Counter[str] = Counter()
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
    if not encoded:
        raise InputError(f"{path} holds nothing to score ({dict(left_out) or 'it is empty'}): see `evaluate --help`")
    answers = sum(map(len, encoded))
    likelihoods = log_likelihoods(decoder, question_batches(encoded, batch_tokens, tokenizer.pad, window), answers)
    if is_text:
        nats, tokens = -sum(likelihoods), sum(len(answer) for document in encoded for _, answer in document)
        scored = {"documents": len(encoded), "bits_per_byte": nats / math.log(2) / bytes_in_all}
        scored |= {"perplexity": math.exp(nats / tokens), "tokens": tokens, "bytes": bytes_in_all}
    else:
        scored = accuracies(likelihoods, [one.gold for one in asked], [one.lengths for one in asked])
    return scored | ({"left_out": dict(left_out)} if left_out else {})


def texts(path: str) -> Iterator[Row | str]:
    """Documents of a file or folder, or the reason why one is none."""
    reader = Files([path])
    for file in reader.files():
        for document in reader.read(file):
            yield {"text": document.text} if document.text else str(document.reason or "empty")
