"""`compare`: win rates, KL and responses of several models on the same validation prompts.

Models are in memory one at a time, beside the reference; every prompt gets the same random numbers from each, so that
differences are of the models. A reward model that a policy was trained against prefers that policy: the monitored
reward beside it shows how far that goes.
"""

import functools
import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, cast

import torch
import xxhash
from torch import Tensor
from tqdm import tqdm

from alignment.comparison.side_by_side import SideBySide, kl_estimates
from alignment.rewards.base import Response, Reward
from alignment.rewards.reward_model_score import RewardModelScore
from alignment.rewards.scoring import check_rows, scores_of
from callbacks.reports.comparison_report import COMPARISON, RESPONSES, write_comparison_report
from commands.compare.judges import open_weights, reward_models, shared_tokenizer
from commands.compare.response_cache import ComparedResponses, Made
from common.errors import InputError
from common.path_lists import PathList, path_list
from common.stop_tokens import stop_tokens
from datamodules.conversations.chat_template import ChatTemplate, TemplateRefusalError
from datamodules.conversations.example_store import split_of
from datamodules.conversations.messages import Unusable
from datamodules.conversations.row_formats import group_of, question
from datamodules.conversations.rows import FileRows, Row, Rows
from datamodules.conversations.template_check import require_same_template
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, own_template
from models.decoder import Decoder
from models.device import default_device
from models.inference.generation import generate
from models.inference.sampling import Sampling
from models.weights.load import load_decoder
from models.weights.source import WeightSource

KEPT = "by_model"
"""Folder below the output with what each model wrote."""
Prompt = tuple[list[int], Row]
"""Token ids of a prompt, and the row it came from."""


def compare_models(
    models: dict[str, str],
    prompts: Rows | PathList,
    output: str,
    reference: str | None = None,
    reward_model: str | None = None,
    monitored_reward: Reward | None = None,
    chat_template: str | None = None,
    validation_fraction: float = 0.05,
    split_seed: int = 0,
    limit: int | None = 128,
    samples: int = 1,
    max_prompt_tokens: int = 512,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    slots: int = 32,
    batch_tokens: int = 4096,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Compare models on the same prompts: win rates by a reward model and a monitored reward, KL divergence from one of
    them, samples.

    Args:
        models: name -> a run's folder, a checkpoint, a file that `convert` wrote, or a Hugging Face folder.
        prompts: files of rows with `prompt`, `messages` or a preference; or a class of rows, as data takes them.
        output: folder for `comparison.json`, `responses.jsonl` and a page. What each model wrote is kept there until
            all have: a comparison that is killed and started again goes on with the next model.
        reference: name of the model that the others are held against; by default the first.
        reward_model: run of a reward model.
        monitored_reward: a reward that can be checked, by class_path.
        chat_template: see the data of fine-tuning; null takes the reference's own.
        validation_fraction: share of rows taken, those that training with this `validation_fraction` validates on; 1
            for a file that nothing was trained on.
        split_seed: seed of the choice of validation rows.
        limit: prompts, chosen by a hash; null for all.
        samples: responses to each prompt. With several, also what the best of them by the reward model, or else by the
            monitored reward, are worth: rejection sampling, whose KL divergence is known.
        max_prompt_tokens: prompts of more tokens are left out, and counted.
        max_new_tokens: tokens of a response at most.
        temperature: temperature of sampling, and of the distributions whose KL divergence is measured.
        seed: seed of sampling.
        slots: responses generated together.
        batch_tokens: tokens scored at once.
        precision: precision of the weights in memory.
    """
    validate(
        models,
        validation_fraction,
        temperature,
        limit=limit,
        samples=samples,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        slots=slots,
        batch_tokens=batch_tokens,
    )
    first = reference or next(iter(models))
    if first not in models:
        raise InputError(f"reference={first}: no such model, take one of {', '.join(models)}")
    judges: dict[str, Reward] = {} if monitored_reward is None else {"monitored_reward": monitored_reward}
    if reward_model is not None:
        judges = {"reward": RewardModelScore(reward_model, precision=precision, batch_tokens=batch_tokens)} | judges
    if not judges:
        raise InputError("nothing to compare by: give --reward_model or --monitored_reward")
    stored = {name: WeightSource(Path(path)) for name, path in models.items()}
    tokenizer = shared_tokenizer({name: weights.path for name, weights in stored.items()} | reward_models(judges))
    for name, weights in stored.items():
        if weights.config.get("scalar_output"):
            raise InputError(f"models: {name}={weights.path} is a reward model, which writes no text")
        if (rows := weights.config["vocabulary_size"]) != (expected := stored[first].config["vocabulary_size"]):
            raise InputError(f"models: {name} has {rows} token ids, {first} {expected}: a KL divergence needs as many")
    for judge in judges.values():
        open_weights(judge, tokenizer)
    template = ChatTemplate(chat_template or own_template(find_tokenizer(stored[first].path)) or "chatml", tokenizer)
    for path in reward_models(judges).values():
        require_same_template(path, template)
    source = prompts if isinstance(prompts, Rows) else FileRows(path_list(prompts))
    asked, left_out = validation_prompts(source, template, validation_fraction, split_seed, limit, max_prompt_tokens)
    check_rows(judges, [row for _, row in asked])
    device, dtype = default_device(), getattr(torch, precision)
    sampling, stop = Sampling(temperature=temperature, seed=seed), stop_tokens(tokenizer, template)

    asked_often = [prompt for prompt in asked for _ in range(samples)]
    kept = ComparedResponses(Path(output) / KEPT, asked_often, tokenizer)
    settings: dict[str, Any] = {
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    computed: dict[str, Any] = {
        "slots": slots,
        "batch_tokens": batch_tokens,
        "precision": precision,
        "device": device.type,
        "stop": sorted(stop),
    }
    base: Decoder | None = None
    responses: dict[str, list[Response]] = {}
    kl: dict[str, tuple[Tensor, Tensor]] = {}

    def make(name: str) -> Made:
        nonlocal base
        base = base or load_decoder(stored[first], device, dtype)
        decoder = base if name == first else load_decoder(stored[name], device, dtype)
        given = generate_responses(decoder, tokenizer, asked_often, max_new_tokens, sampling, stop, slots, name)
        return given, kl_estimates(decoder, base, given, temperature, batch_tokens)

    for name in models:
        identity = [stored[name].identity, stored[first].identity, settings, computed]
        responses[name], kl[name] = kept.get(identity, functools.partial(make, name))
    base = None
    scores: dict[str, dict[str, Tensor]] = {}
    for kind, judge in judges.items():
        judge.prepare(device)
        scores[kind] = {name: scores_of(judge, given, kind) for name, given in responses.items()}
    found = SideBySide(first, responses, scores, kl, samples)
    settings = {"prompts": len(asked)} | settings | {"reference": first, "reward_model": reward_model}
    settings |= {"left_out": dict(left_out)}
    settings |= {
        "monitored_reward": type(monitored_reward).__name__ if monitored_reward is not None else None,
        "runs": models,
    }
    write_results(Path(output), found, settings, asked)
    kept.forget()


def validate(models: dict[str, str], validation_fraction: float, temperature: float, **sizes: int | None) -> None:
    """Refuse what cannot be compared, before anything is loaded."""
    if len(models) < 2:
        raise InputError(f"models: {', '.join(models) or 'none'}: name at least two, --models.NAME=RUN")
    if not 0 < validation_fraction <= 1:
        raise InputError(f"validation_fraction={validation_fraction}: must lie above 0 and be at most 1")
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: a KL divergence is an expectation over samples, give more than 0")
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: must be at least 1")


# Prompts and responses


def validation_prompts(
    rows: Rows, template: ChatTemplate, fraction: float, seed: int, limit: int | None, longest: int
) -> tuple[list[Prompt], Counter[str]]:
    """Different validation prompts, in the order of a hash, and how many rows were left out for what.

    Raises:
        InputError: when none is left.
    """
    found: dict[int, Prompt] = {}
    left_out: Counter[str] = Counter()
    advice = ""
    for row in tqdm(rows.rows(), desc="prompts", unit=" rows"):
        try:
            if isinstance(row, str):
                raise Unusable(row)
            messages = question(row)
            if split_of(group_of(row, messages), fraction, seed) != "validation":
                continue
            ids = template.encode_prompt(messages)
            if not 0 < len(ids) <= longest:
                raise Unusable("longer_than_max_prompt_tokens" if ids else "empty_prompt")
        except TemplateRefusalError as refusal:
            left_out[f"refused_by_template: {str(refusal)[:80]}"] += 1
        except Unusable as reason:
            left_out[str(reason)] += 1
            advice = advice or reason.advice
        else:
            found.setdefault(xxhash.xxh3_64_intdigest(json.dumps(ids).encode()), (ids, row))
    if not found:
        advice = advice or "give more rows, or validation_fraction=1"
        raise InputError(f"prompts: none is for validation ({dict(left_out)}): {advice}")
    return [found[key] for key in sorted(found)[:limit]], left_out


def generate_responses(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Collection[int],
    slots: int,
    name: str,
) -> list[Response]:
    """An response to each prompt; equal prompts get different ones."""
    results: list[Response] = []
    # In pieces, so that something is seen to happen; a row's number keeps its response the same.
    for start in tqdm(range(0, len(prompts), 4 * slots), desc=f"{name} responses", unit=" batches"):
        piece = prompts[start : start + 4 * slots]
        ids, numbers = [prompt for prompt, _ in piece], range(start, start + len(piece))
        new = generate(
            decoder,
            ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            slots=slots,
            rows=numbers,
        )
        for (prompt, row), one in zip(piece, new, strict=True):
            results.append(Response(prompt, one.tokens, tokenizer.decode_continuation(one.tokens), one.finish, row))
    return results


# Results


def write_results(
    output: Path, found: SideBySide, settings: dict[str, Any], asked: list[Prompt], shown: int = 8
) -> None:
    """The numbers, every response, and the page; a table for the terminal."""
    output.mkdir(parents=True, exist_ok=True)
    rows = {
        name: [response_row(found, name, number) for number in range(len(found.responses[name]))]
        for name in found.responses
    }
    with (output / RESPONSES).open("w", encoding="utf-8") as file:
        for name, of_model in rows.items():
            file.writelines(json.dumps({"model": name, **row}, ensure_ascii=False) + "\n" for row in of_model)
    results: dict[str, Any] = {
        "settings": settings,
        "models": {name: found.of_model(name) for name in found.responses},
        "win_rates": found.against_each_other(),
        "samples": [
            {"prompt": prompt_text(row), "responses": {name: rows[name][number * found.samples] for name in rows}}
            for number, (_, row) in enumerate(asked[:shown])
        ],
    }
    temporary = output / f"{COMPARISON}.partial"
    temporary.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.rename(output / COMPARISON)
    print(format_table(results))
    print(f"report: {write_comparison_report(output)}")


def response_row(found: SideBySide, name: str, number: int) -> dict[str, Any]:
    """One response and what is known of it."""
    one = found.responses[name][number]
    row: dict[str, Any] = {"prompt": number // found.samples, "text": one.text, "finish": one.finish}
    row |= {"tokens": len(one.tokens), "kl": float(found.kl[name][0][number])}
    return row | {judge: float(by_model[name][number]) for judge, by_model in found.scores.items()}


def prompt_text(row: Row) -> str:
    """A prompt as text."""
    return "\n".join(cast(str, message["content"]) for message in question(row) if message["content"])


def format_table(results: dict[str, Any]) -> str:
    """Lines for the terminal: every number and the ends of its interval."""
    models = results["models"]
    columns = [key for key, value in next(iter(models.values())).items() if isinstance(value, dict)]
    lines = [["", *columns]]
    for name, numbers in models.items():
        intervals = [numbers[column] for column in columns]
        lines.append([name, *(f"{i['value']:.3g} ({i['low']:.3g} to {i['high']:.3g})" for i in intervals)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
