"""DPO and supervised fine-tuning beside TRL: same weights, same pairs, same batches, same optimizer, one after the
other.

    pip install -e ".[bench]" && python -m benchmarks.alignment.alignment_against_trl --precision 32-true

A Llama of 32 M parameters, prompts of 64 tokens, responses of 64-128, batches of 8. Each run is a process of its own,
which prints its losses, its seconds per step (median without the first two) and its peak memory; the two take turns.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

VOCABULARY, PROMPT, BATCH = 6400, 64, 8
SHAPE = {"width": 512, "layers": 8, "heads": 8, "key_value_heads": 8, "feed_forward_width": 1376}
EOS, PAD, LEARNING_RATE = 2, 3, 1e-5
OUTPUT = Path(__file__).with_suffix(".json")


def pairs(count: int) -> list[list[list[int]]]:
    """Prompt, chosen and rejected of random tokens, the responses of 64-128 with end of text."""
    generator = np.random.default_rng(0)

    def tokens(size: int) -> list[int]:
        return [int(token) for token in generator.integers(4, VOCABULARY, size=size)]

    return [
        [tokens(PROMPT), *([*tokens(int(generator.integers(64, 129)) - 1), EOS] for _ in range(2))]
        for _ in range(count)
    ]


def decoder_config() -> Any:
    from models.decoder import DecoderConfig

    return DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **SHAPE)


# Ours


def run_ours(task: str, precision: str, steps: int, folder: Path) -> dict[str, Any]:
    """Train by the project's own modules."""
    import lightning

    from alignment import DPO, PreferencePolicy
    from datamodules.conversations.example_store import Examples
    from datamodules.preferences import PairBatches, PreferenceData
    from datamodules.resumable import ResumableDataModule
    from datamodules.sft import PackedConversations, SFTData
    from models import AdamW, LanguageModel
    from models.optimizers.schedules import Schedule
    from strategies import TensorParallelStrategy

    class Constant(Schedule):
        def after_warmup(self, progress: float) -> float:
            return 1.0

    class MadeUp(Examples):
        def __init__(self, rows: list[list[list[int]]]) -> None:
            self.rows, self.margins = rows, np.zeros(len(rows), dtype=np.float32)
            self.probabilities = np.ones(len(rows), dtype=np.float32)
            self.offsets = np.cumsum([[0, *map(len, row)] for row in rows], axis=1)

        @property
        def trained_tokens(self) -> np.ndarray:
            return self.lengths[:, 1]

        @property
        def lengths(self) -> np.ndarray:
            sizes = np.diff(self.offsets, axis=1)
            return sizes if task == "dpo" else np.stack((sizes[:, :2].sum(1), sizes[:, 1]), axis=1)

        def segments(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
            prompt, *responses = (np.array(part) for part in self.rows[number])
            if task == "sft":
                trained = np.arange(len(prompt) + len(responses[0])) >= len(prompt)
                return [(np.concatenate((prompt, responses[0])), trained)]
            return [(part, np.ones(len(part), dtype=bool)) for part in (prompt, *responses)]

    class MadeUpPairs(PreferenceData):
        def __init__(self) -> None:
            ResumableDataModule.__init__(self, BATCH, workers=0)
            self.folder, self.source_names, self.vocabulary_size = folder, ["pairs"], VOCABULARY
            self.prepared = folder / "preferences-made-up"

        def prepare_data(self) -> None: ...

        def setup(self, stage: str) -> None:
            self.examples = {"train": MadeUp(pairs((steps + 2) * BATCH)), "validation": MadeUp(pairs(BATCH))}
            self.train_pairs = PairBatches(self.examples["train"], PAD)
            self.validation_dataset = PairBatches(self.examples["validation"], PAD)
            self.tokenizer = type("Pad", (), {"pad": PAD})()

    class MadeUpConversations(SFTData):
        def __init__(self) -> None:
            ResumableDataModule.__init__(self, 1, workers=0)
            self.sequence_length, self.source_names, self.vocabulary_size = 0, ["instructions"], VOCABULARY

        def prepare_data(self) -> None: ...

        def setup(self, stage: str) -> None:
            examples = MadeUp(pairs((steps + 2) * BATCH))  # the loader looks ahead
            # The same eight examples per step as the peer: a row holds one batch.
            lengths = examples.lengths[:, 0] - 1
            batches = [list(range(first, first + BATCH)) for first in range(0, len(examples), BATCH)]
            longest = max(int(lengths[batch].sum()) for batch in batches)
            self.train_rows = PackedConversations(examples, longest, PAD, np.ones(VOCABULARY, dtype=np.int64))
            self.train_rows.rows = batches
            self.train_rows.labels = np.array([examples.trained_tokens[batch].sum() for batch in batches])

    class Record(lightning.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.times: list[float] = []

        def on_train_batch_start(self, *arguments: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            self.times.append(time.perf_counter() - self.start)
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    settings: dict[str, Any] = {
        "optimizer": AdamW(LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0),
        "schedule": Constant(0, 1.0),
        "decoder": decoder_config(),
    }
    model = PreferencePolicy(DPO(0.1), **settings) if task == "dpo" else LanguageModel(**settings)
    record = Record()
    trainer = lightning.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, strategy=TensorParallelStrategy(), precision=precision,
        max_steps=steps, gradient_clip_val=1.0, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, callbacks=[record],
        log_every_n_steps=1, check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(model, datamodule=MadeUpPairs() if task == "dpo" else MadeUpConversations())
    return {"losses": record.losses, "times": record.times}


# TRL


def run_trl(task: str, precision: str, steps: int, folder: Path, precomputed: bool = False) -> dict[str, Any]:
    """Train by TRL's Trainers, from the same weights."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    words = {"<unk>": 0, "<s>": 1, "</s>": EOS, "<pad>": PAD} | {f"w{i}": i for i in range(4, VOCABULARY)}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", bos_token="<s>"
    )

    def text(tokens: list[int]) -> str:
        return " ".join(f"w{token}" for token in tokens if token != EOS)

    rows = [
        {"prompt": f"{text(prompt)} ", "chosen": text(chosen), "rejected": text(rejected)}
        for prompt, chosen, rejected in pairs(steps * BATCH)
    ]
    if task == "sft":
        rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    config = decoder_config()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=config.width, intermediate_size=config.feed_forward_width,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, attention_bias=False,
            num_key_value_heads=config.key_value_heads, rms_norm_eps=config.norm_epsilon, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            bos_token_id=1, eos_token_id=EOS, pad_token_id=PAD,
        )
    )  # fmt: skip
    load_llama(model)
    # TRL makes the reference from where the model was loaded.
    model.save_pretrained(folder / "model")
    model = LlamaForCausalLM.from_pretrained(folder / "model")
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            times.append(time.perf_counter() - self.start)

    common: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": BATCH, "max_steps": steps, "use_cpu": True,
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0,
        "adam_beta2": 0.999, "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "bf16": precision == "bf16-mixed", "gradient_checkpointing": False, "max_length": None, "disable_tqdm": True,
    }  # fmt: skip
    base = DPOTrainer if task == "dpo" else SFTTrainer

    class InOrder(base):  # type: ignore[misc, valid-type]
        def _get_train_sampler(self, *arguments: Any, **keywords: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    chosen = (
        DPOConfig(beta=0.1, precompute_ref_log_probs=precomputed, **common) if task == "dpo" else SFTConfig(**common)
    )
    trainer = InOrder(
        model=model, args=chosen, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "times": times}


def load_llama(model: Any) -> None:
    """Give a Hugging Face Llama the weights that our modules draw."""
    from models.initialization import build_decoder

    names = {
        "tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head",
        "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
        "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
    }  # fmt: skip
    theirs = {}
    for name, value in build_decoder(decoder_config()).named_parameters():
        stem = name.removesuffix(".weight")
        if stem.startswith("layers."):
            _, layer, part = stem.split(".", 2)
            theirs[f"model.layers.{layer}.{names[part]}.weight"] = value.detach()
        else:
            theirs[f"{names[stem]}.weight"] = value.detach()
    model.load_state_dict(theirs)


# Side by side


def child(arguments: argparse.Namespace) -> None:
    """One run, printed as JSON on the last line."""
    with tempfile.TemporaryDirectory() as folder:
        task, precision, steps, path = arguments.task, arguments.precision, arguments.steps, Path(folder)
        if arguments.run == "ours":
            result = run_ours(task, precision, steps, path)
        else:
            result = run_trl(task, precision, steps, path, precomputed=arguments.run == "trl-precomputed")
    result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def main() -> None:
    """Run each in turn, several times, and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--task", choices=["dpo", "sft"], nargs="*", default=["dpo", "sft"])
    parser.add_argument("--run", choices=["ours", "trl", "trl-precomputed"], help="one run, for the parent to start")
    arguments = parser.parse_args()
    if arguments.run:
        (arguments.task,) = arguments.task
        child(arguments)
        return
    records = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    for task in arguments.task:
        found: dict[str, list[dict[str, Any]]] = {}
        runs = ["ours", "trl", "trl-precomputed"] if task == "dpo" else ["ours", "trl"]
        for run in tqdm(runs * arguments.repeats, desc=f"{task}, {arguments.precision}"):
            command = [sys.executable, "-m", "benchmarks.alignment.alignment_against_trl", "--run", run, "--task", task]
            command += ["--precision", arguments.precision, "--steps", str(arguments.steps)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
            found.setdefault(run, []).append(json.loads(output.splitlines()[-1]))
        sizes = [sum(map(len, row[:2])) for row in pairs(arguments.steps * BATCH)]
        for run, results in found.items():
            seconds = statistics.median(time for result in results for time in result["times"][2:])
            row = {
                "task": task, "run": run, "precision": arguments.precision, "losses": results[0]["losses"][:5],
                "seconds_per_step": round(seconds, 3), "pairs_or_examples_per_second": round(BATCH / seconds, 3),
                "tokens_per_second": round(sum(sizes) / len(sizes) * BATCH / seconds) if task == "sft" else None,
                "peak_megabytes": round(max(result["peak_megabytes"] for result in results)),
                "repeats": arguments.repeats, "steps": arguments.steps,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
                f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
            }  # fmt: skip
            records = [r for r in records if (r["task"], r["run"], r["precision"]) != (task, run, arguments.precision)]
            records.append(row)
            OUTPUT.write_text(json.dumps(records, indent=1) + "\n")
            print(json.dumps(row))


if __name__ == "__main__":
    main()
