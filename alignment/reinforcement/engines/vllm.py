"""Rollout engine of vLLM in the trainer's process.

Faster on a GPU, for a second copy of the weights and of their names.

Never run in this project's tests, whose machines have no vLLM: it relies on vLLM's public interface of 0.10 and
later, named at each use.
"""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.reinforcement.engines.base import Decoding, RolloutEngine
from common.errors import InputError
from models.decoder import Decoder
from models.inference.generation import Generated
from models.weights.hugging_face_names import hugging_face_names


class VLLMEngine(RolloutEngine):
    """A vLLM engine on this rank's device, which loads the trainer's weights before every batch.

    Draws are vLLM's own: the same seed gives other responses than `DecoderEngine`. Its log-probabilities are those
    after temperature and filters (`logprobs_mode="processed_logprobs"`); with a filter they are normalized over the
    kept tokens, which the trainer's are not: measure the drift, or sample without filters.

    Args:
        folder: a Hugging Face folder of the model that training starts from, as `convert` writes it; its shape is what
            vLLM builds.
        gpu_memory_utilization: share of the device's memory that vLLM takes, beside the trainer.
        options: further arguments of `vllm.LLM`.

    Raises:
        InputError: where vllm is not installed.
    """

    def __init__(self, folder: str, gpu_memory_utilization: float = 0.3, options: dict[str, Any] | None = None) -> None:
        try:
            self.vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise InputError(
                "engine=alignment.VLLMEngine: vllm is not installed, `pip install -e .[vllm]`, or take "
                "alignment.DecoderEngine"
            ) from error
        self.options = {
            "model": folder,
            "gpu_memory_utilization": gpu_memory_utilization,
            "logprobs_mode": "processed_logprobs",
            **(options or {}),
        }
        self.engine: Any = None

    def generate(
        self, policy: Decoder, prompts: Sequence[Sequence[int]], decoding: Decoding, rows: Sequence[int]
    ) -> list[Generated]:
        sampling = decoding.sampling
        if self.engine is None:
            self.engine = self.vllm.LLM(**self.options)

        def take_weights(model: Any) -> None:
            model.load_weights(named_weights(policy))

        self.engine.apply_model(take_weights)
        self.engine.reset_prefix_cache()
        settings = [
            self.vllm.SamplingParams(
                temperature=sampling.temperature,
                top_k=sampling.top_k or -1,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                repetition_penalty=sampling.repetition_penalty,
                max_tokens=decoding.max_new_tokens,
                stop_token_ids=list(decoding.stop),
                ignore_eos=True,
                seed=(sampling.seed + row) % 2**63,
                logprobs=0,
                detokenize=False,
            )
            for row in rows
        ]
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = [output.outputs[0] for output in self.engine.generate(inputs, settings, use_tqdm=False)]
        return [
            Generated(
                list(output.token_ids),
                [found[token].logprob for token, found in zip(output.token_ids, output.logprobs, strict=True)],
                "stop" if output.finish_reason == "stop" else "length",
            )
            for output in outputs
        ]


def named_weights(policy: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under the name of the Hugging Face ecosystem.

    Raises:
        InputError: for adapters.
    """
    if policy.config.lora is not None:
        raise InputError("engine=alignment.VLLMEngine with lora: adapters are not handed over, train all weights")
    for name, parameter in policy.named_parameters():
        theirs, value = hugging_face_names(name, policy.config), parameter.detach()
        yield from zip(theirs, [value] if len(theirs) == 1 else torch.unbind(value), strict=True)
