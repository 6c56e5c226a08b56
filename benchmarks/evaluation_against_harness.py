"""Evaluation beside lm-evaluation-harness on the same exported model: likelihoods, accuracies, bits per byte.

    pip install -e ".[bench]" && python -m benchmarks.evaluation_against_harness --run runs/quickstart

Questions come from the Python source on this machine (which docstring belongs to a function; which of two texts was
written); the harness scores the exported Hugging Face folder with its own tokenizer, contexts, windows and rounding.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from commands.models.convert import convert  # noqa: E402
from commands.models.evaluate import score_file  # noqa: E402
from datamodules.conversations.multiple_choice import question  # noqa: E402
from datamodules.conversations.rows import DocstringRows  # noqa: E402
from datamodules.tokenization.files import find_tokenizer, load_tokenizer  # noqa: E402
from models.decoder import Decoder  # noqa: E402
from models.initialization import materialize  # noqa: E402
from models.weights.source import WeightSource  # noqa: E402

WINDOW = 512


def rows(count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Questions of three shapes, and texts."""
    made = DocstringRows(max_megabytes=12).rows()
    found = [row for row in made if isinstance(row, dict) and "chosen" in row][:count]
    generator, asked = random.Random(0), []
    for number, row in enumerate(found):
        choices, gold = [row["chosen"], row["rejected"]], generator.randrange(2)
        choices = choices[::-1] if gold else choices
        if number % 3 == 0:
            asked.append({"context": row["prompt"], "choices": choices, "gold": gold, "delimiter": ""})
        elif number % 3 == 1:
            labels = {"text": choices, "label": ["A", "B"]}
            asked.append({"question": row["prompt"], "choices": labels, "answerKey": "AB"[gold]})
        else:
            words = row["chosen"].split()
            asked.append({"sentence_good": row["chosen"], "sentence_bad": " ".join(words[::-1]) + " "})
    return asked, [row["prompt"] + row["chosen"] for row in found]


def main() -> None:
    """Score with both, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--count", type=int, default=300)
    arguments = parser.parse_args()
    asked, texts = rows(arguments.count)
    with tempfile.TemporaryDirectory() as folder:
        exported, questions, text = (Path(folder, name) for name in ("model", "questions.jsonl", "texts.jsonl"))
        convert(str(arguments.run), str(exported), positions=WINDOW)
        questions.write_text("\n".join(map(json.dumps, asked)))
        text.write_text("\n".join(json.dumps({"text": one}) for one in texts))

        start = time.perf_counter()
        stored = WeightSource(exported)
        tokenizer = load_tokenizer(find_tokenizer(arguments.run))
        with torch.device("meta"):
            decoder = Decoder(stored.whole_config())
        materialize(decoder, torch.device("cpu"), 0, stored=stored.merged)
        options = {"limit": None, "window": WINDOW, "batch_tokens": 4096}
        ours = score_file(decoder, tokenizer, str(questions), is_text=False, **options)
        ours |= score_file(decoder, tokenizer, str(text), is_text=True, **options)
        seconds = time.perf_counter() - start

        start = time.perf_counter()
        harness = HFLM(pretrained=str(exported), device="cpu", batch_size=16, dtype="float32", max_length=WINDOW - 1)
        known = [question(row) for row in asked]
        requests = [(one.context, choice) for one in known for choice in one.choices]
        instances = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(requests)]
        values = iter([value for value, _ in harness.loglikelihood(instances)])
        hits, hits_norm = [], []
        for one in known:
            mine = [next(values) for _ in one.choices]
            by_character = [value / length for value, length in zip(mine, one.lengths, strict=True)]
            hits.append(mine.index(max(mine)) == one.gold)
            hits_norm.append(by_character.index(max(by_character)) == one.gold)
        rolling = [Instance("loglikelihood_rolling", {}, (one,), number) for number, one in enumerate(texts)]
        # Where a tokenizer adds a beginning-of-text token, the harness scores that token too, after another one.
        harness.add_bos_token = False
        nats = -sum(harness.loglikelihood_rolling(rolling))
        theirs = {
            "accuracy": sum(hits) / len(hits),
            "accuracy_norm": sum(hits_norm) / len(hits_norm),
            "bits_per_byte": nats / math.log(2) / sum(len(one.encode()) for one in texts),
        }
        peer_seconds = time.perf_counter() - start
    record = {
        "questions": len(asked),
        "documents": len(texts),
        "ours": {key: ours[key] for key in theirs} | {"seconds": round(seconds, 1)},
        "harness": theirs | {"seconds": round(peer_seconds, 1)},
        "largest_difference": max(abs(ours[key] - theirs[key]) for key in theirs),
    }
    print(json.dumps(record, indent=1))
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
