"""`constitution`: revisions and AI preferences made by a model and principles (Constitutional AI).

The stages themselves are in `alignment.constitutional.revisions` and `alignment.constitutional.ai_feedback`; between
the two belongs a `fit`, so that the pairs come from the model that the revisions taught.
"""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from alignment.constitutional.ai_feedback import Preferences
from alignment.constitutional.constitution import Constitution, read_constitution
from alignment.constitutional.judge import Judge, LoadedModel
from alignment.constitutional.llm_calls import AnnotationStage, PromptRecord, RecordedCalls
from alignment.constitutional.record_log import Records, costs, json_lines, write_if_changed
from alignment.constitutional.revisions import Revisions
from commands.mistakes import require_at_least
from common.errors import InputError
from common.fingerprint import fingerprint, users_class_fingerprint
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.conversations.messages import Unusable
from datamodules.conversations.multiple_choice import question_batches
from datamodules.conversations.row_formats import instruction, preference, question
from datamodules.conversations.rows import Row, Rows
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, own_template
from models.decoder import Decoder
from models.weights.load import load_decoder
from models.weights.source import WeightSource

ROWS, SUMMARY = "rows.jsonl", "summary.json"


def constitution(
    folder: str,
    constitution: str,
    prompts: Rows,
    generator: Judge,
    judge: Judge | None = None,
    revisions: Revisions | None = Revisions(),
    preferences: Preferences | None = Preferences(),
    samples: int | None = None,
    worked_examples: int | None = None,
    helpful_instructions: Rows | None = None,
    helpful_pairs: Rows | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> None:
    """Make data by Constitutional AI (Bai et al. 2022): FOLDER/revisions/rows.jsonl and FOLDER/preferences/rows.jsonl.

    Beside the rows, which `fit` reads, lies `records.jsonl`: a line per sample with everything that models were asked
    and said. Killed and started again, a stage goes on where it was; other settings want another folder.

    Args:
        folder: folder for the results.
        constitution: YAML file with principles and worked examples.
        prompts: rows with a `prompt`, `messages`, or `chosen`, of which the prompt is taken.
        generator: responds to the prompts.
        judge: criticizes, revises and compares; null is the generator.
        revisions: the stage whose rows the generator is to be fine-tuned on; null leaves it out.
        preferences: the stage whose rows a reward model or a policy learns from; null leaves it out.
        samples: rows of `prompts` to take; null takes all.
        worked_examples: number of examples of each kind, shown before what is asked; null shows all.
        helpful_instructions: rows with responses to mix with the revisions, so that helpfulness is not unlearned.
        helpful_pairs: rows of human preferences to mix with the model's.
        batch_size: samples made and recorded together.
        seed: seed of the choice of principles and of sampling.
    """
    require_at_least(batch_size=(batch_size, 1), samples=(samples, 1), worked_examples=(worked_examples, 0))
    if not 0 <= seed < 2**63:
        raise InputError(f"seed={seed}: must lie between 0 and 2^63")
    law = read_constitution(constitution).with_examples(worked_examples)
    if preferences is not None and preferences.principles_per_pair > len(law.principles):
        raise InputError(
            f"preferences.principles_per_pair={preferences.principles_per_pair}: {constitution} has only "
            f"{len(law.principles)}"
        )
    stages: list[tuple[AnnotationStage, Iterator[Row | str]]] = []
    if revisions is not None:
        stages.append((revisions, helpful_rows(helpful_instructions, instruction_row)))
    if preferences is not None:
        stages.append((preferences, helpful_rows(helpful_pairs, preference_row)))
    if not stages:
        raise InputError("revisions and preferences are both null: there is nothing to do")
    for helpful in (helpful_instructions, helpful_pairs):
        if helpful is not None:
            helpful.identity()  # files that are not there are named now, not after hours
    taken = read_samples(prompts, samples)
    models = {"generator": generator, "judge": judge or generator}
    common = {
        "constitution": asdict(law),
        "prompts": fingerprint(prompts.identity()),
        "seed": seed,
        "batch_size": batch_size,
    }
    open_model = LanguageModels()
    for stage, added in stages:
        with Records(Path(folder) / stage.name) as records:
            for name, model in models.items():
                if name == "generator" or model is not generator:
                    model.prepare(open_model, records.folder / f"journal-{name}.jsonl")
            identities = {name: model.identity() for name, model in models.items()}
            examples = stage.examples(law)
            parts = {"prompts": prompts, "stage": stage} | models
            classes = {name: users_class_fingerprint(type(part)) for name, part in parts.items()}
            records.require(common | identities | {"examples": examples, "classes": classes} | stage.settings())
            llm = RecordedCalls(models, examples, seed)
            make = functools.partial(make_records, stage, law, llm, identities)
            records.make([replace(sample, calls=[]) for sample in taken], batch_size, make, llm, stage.name)
            finish(stage, records, added, models)


def make_records(
    stage: AnnotationStage,
    law: Constitution,
    llm: RecordedCalls,
    identities: Mapping[str, Any],
    samples: list[PromptRecord],
) -> list[Row]:
    """Records of samples, with the models that made them."""
    names = {name: fingerprint(identity) for name, identity in identities.items()}
    return [record | {"models": names} for record in stage.make(samples, law, llm)]


def read_samples(prompts: Rows, samples: int | None) -> list[PromptRecord]:
    """A sample a row; one without a prompt is dropped from the start.

    Raises:
        InputError: when there is none.
    """
    found, advice = [], ""
    for number, row in enumerate(itertools.islice(prompts.rows(), samples)):
        try:
            if isinstance(row, str):
                raise Unusable(row)
            group = row.get("group")
            found.append(PromptRecord(number, question(row), None if group is None else str(group)))
        except Unusable as reason:
            found.append(PromptRecord(number, [], dropped=str(reason)))
            advice = advice or reason.advice
    if all(sample.dropped for sample in found):
        reasons = dict(Counter(sample.dropped for sample in found))
        advice = advice or "name other files"
        raise InputError(f"prompts: {len(found)} rows hold no prompt ({reasons or 'no row at all'}): {advice}")
    return found


class LanguageModels:
    """Stored language models on the accelerator, if there is one, each there once whatever templates it is asked by."""

    def __init__(self) -> None:
        self._decoders: dict[tuple[str, torch.dtype], Decoder] = {}

    def __call__(self, path: str, chat_template: str | None, dtype: torch.dtype) -> LoadedModel:
        """A model with its tokenizer and its template.

        Raises:
            InputError: where there is none, or it is a reward model.
        """
        stored = WeightSource(Path(path))
        if stored.whole_config().scalar_output:
            raise InputError(f"init_from={path} is a reward model, which writes no text: name a language model")
        file = find_tokenizer(stored.path)
        tokenizer = load_tokenizer(file)
        template = ChatTemplate(chat_template or own_template(file) or "chatml", tokenizer)
        if (path, dtype) not in self._decoders:
            self._decoders[path, dtype] = load_decoder(stored, dtype=dtype)
        return LoadedModel(self._decoders[path, dtype], tokenizer, template, question_batches, stored.identity)


def helpful_rows(rows: Rows | None, read: Callable[[Row], Row]) -> Iterator[Row | str]:
    """Rows that people made, as `fit` reads them, or why one is left out."""
    for row in rows.rows() if rows is not None else []:
        try:
            yield row if isinstance(row, str) else read(row)
        except Unusable as reason:
            yield str(reason)


def instruction_row(row: Row) -> Row:
    """A conversation with its responses."""
    return {"messages": instruction(row)} | ({"group": row["group"]} if row.get("group") is not None else {})


def preference_row(row: Row) -> Row:
    """A pair as people judged it."""
    pair = preference(row)
    kept = {"group": row["group"]} if row.get("group") is not None else {}
    margin = {"margin": pair.margin} if pair.margin else {}
    label = {"preference_probability": pair.probability}
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} | label | margin | kept


def finish(stage: AnnotationStage, records: Records, helpful: Iterator[Row | str], models: Mapping[str, Judge]) -> None:
    """Write the rows to learn from, the model's before the helpful ones, and say what became of samples and money."""
    counted: Counter[str] = Counter()
    dropped: Counter[str] = Counter()

    def rows() -> Iterator[bytes]:
        for record in records:
            counted["samples"] += 1
            made = list(stage.rows(record))
            counted["rows"] += len(made)
            dropped.update([record["dropped"]] if record["dropped"] else [])
            yield json_lines(row | {"source": "constitution"} for row in made)
        for row in helpful:
            counted["helpful_rows"] += isinstance(row, dict)
            dropped.update([f"helpful: {row}"] if isinstance(row, str) else [])
            yield json_lines([row | {"source": "helpful"}] if isinstance(row, dict) else [])

    write_if_changed(records.folder / ROWS, rows())
    described = stage.describe(records)
    if not counted["rows"]:
        raise InputError(
            f"{stage.name}: {counted['samples']} samples leave no row (dropped {dict(dropped)}, {described})"
        )
    summary: dict[str, Any] = dict(counted) | {"dropped": dict(dropped)} | described
    summary["cost"] = costs(records, models)
    write_if_changed(records.folder / SUMMARY, [json.dumps(summary, indent=1).encode()])
    print(yaml.safe_dump({str(records.folder / ROWS): summary}, sort_keys=False), end="")
