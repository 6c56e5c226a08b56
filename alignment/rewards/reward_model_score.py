"""Reward-model score: a trained reward model as a reward, read at the last token of the response.

Responses are scored as token ids, never decoded and encoded again, which need not give the same ids. Those to one
prompt are branches behind it, as pairs are in training, so that it is computed once; the price is that the model sees
the policy's own spelling of a text, which it may never have been trained on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig
from models.initialization import materialize
from models.packed_batch import group_by_prompt, pack_responses, response_scores
from models.weights.source import WeightSource

ROUND_TO = 64
"""Rows are padded to a multiple of this many tokens, so that there are few shapes to compile kernels for."""


def open_reward_model(option: str, path: Path, tokenizer: Any, tokenizer_of: Callable[[Path], Any]) -> WeightSource:
    """Weights of a reward model that reads what the policy writes.

    Args:
        option: that names it.
        path: its run, checkpoint or converted file.
        tokenizer: tokenizer of the data.
        tokenizer_of: see `common.contracts.WeightSourcesUser`.

    Raises:
        InputError: for another tokenizer or chat template than the data's.
    """
    source = WeightSource(path)
    if tokenizer_of(path).model != tokenizer.model:
        raise InputError(
            f"{option}={path}: it has another tokenizer than the data's, take a reward model of the same base"
        )
    return source


class RewardModelScore(Reward):
    """(score - shift) / scale by a trained `RewardModel`.

    The model's prompts and responses have to be written in the template it was trained with. A response that ended by
    itself is scored at the end-of-text token, which is added where the sampler stopped before it (ChatML's responses
    end in `<|im_end|>` and that token); one that ended by its length is scored at its last token.

    Args:
        init_from: the reward model: its run, a checkpoint or a file that `convert` wrote.
        shift, scale: make scores comparable: mean and standard deviation on a reference set (`measure`), such as the
            fine-tuned model's own responses (mean: Stiennon et al. 2020, section 3.4 and appendix).
        precision: of the weights and the computation.
        on_cpu: keep the model on the CPU, whatever the policy is on.
        batch_tokens: tokens computed together at most, unless one prompt and response alone have more.

    Raises:
        InputError: for a scale that cannot divide; for weights that are no reward model's.
    """

    def __init__(
        self,
        init_from: str,
        shift: float = 0.0,
        scale: float = 1.0,
        precision: Literal["float32", "bfloat16"] = "float32",
        on_cpu: bool = False,
        batch_tokens: int = 8192,
    ) -> None:
        if not 0 < scale < math.inf or not math.isfinite(shift):
            raise InputError(f"shift={shift}, scale={scale}: must be numbers, scale above 0")
        if batch_tokens < 1:
            raise InputError(f"batch_tokens={batch_tokens}: must be at least 1")
        self.init_from, self.shift, self.scale = init_from, shift, scale
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        self.on_cpu, self.batch_tokens = on_cpu, batch_tokens
        self.stored: Any = None
        self.end: int | None = None
        self.decoder: Decoder | None = None

    def open_weights(self, tokenizer: Any, tokenizer_of: Callable[[Path], Any]) -> None:
        """Open the weights of `init_from`, see `Reward.open_weights`."""
        source = open_reward_model("reward.init_from", Path(self.init_from), tokenizer, tokenizer_of)
        self.load_from(source, tokenizer.eos)

    def load_from(self, stored: Any, end: int) -> None:
        """Take the weights of a source that is open.

        Args:
            stored: has `whole_config()`, and `merged(name)` for every parameter of the decoder.
            end: the tokenizer's end-of-text token.

        Raises:
            InputError: when they are no reward model's.
        """
        config: DecoderConfig = stored.whole_config()
        if not config.scalar_output:
            raise InputError(
                f"reward.init_from: {self.init_from} is not a reward model, train it with alignment.RewardModel"
            )
        if not 0 <= end < config.vocabulary_size:
            raise InputError(
                f"reward.init_from: {self.init_from} has {config.vocabulary_size} token ids, this data's end of text "
                f"is {end}: take a reward model of the same tokenizer"
            )
        self.stored, self.end = stored, end

    def prepare(self, device: torch.device) -> None:
        """Load the model, once."""
        if self.decoder is not None:
            return
        if self.stored is None:
            raise InputError(f"reward.init_from={self.init_from}: its weights are not open, call open_weights first")
        with torch.device("meta"):
            decoder = Decoder(self.stored.whole_config())
        decoder = decoder.requires_grad_(False).to(self.dtype).eval()
        materialize(decoder, torch.device("cpu") if self.on_cpu else device, 0, stored=self.stored.merged)
        self.decoder = decoder

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return (self.scores(responses) - self.shift) / self.scale

    def measure(self, responses: Sequence[Response]) -> tuple[float, float]:
        """Mean and standard deviation of the scores of a reference set, for `shift` and `scale`."""
        deviation, mean = torch.std_mean(self.scores(responses).double(), correction=0)
        return mean.item(), deviation.item()

    @torch.no_grad()
    def scores(self, responses: Sequence[Response]) -> Tensor:
        """The model's own scores, float32 [A] on the CPU.

        Raises:
            InputError: for token ids that the model does not have.
        """
        if self.decoder is None:
            raise InputError(f"reward.init_from={self.init_from}: it is not loaded, call prepare first")
        sequences = [(tuple(response.prompt), self._whole(response)) for response in responses]
        scores = torch.empty(len(responses))
        for numbers in self._batches(sequences):
            scores[numbers] = self._score([sequences[number] for number in numbers])
        return scores

    def _whole(self, response: Response) -> list[int]:
        """A response's tokens as they were in training."""
        tokens, most = list(response.tokens), max((*response.prompt, *response.tokens), default=-1)
        assert self.decoder is not None
        if most >= self.decoder.config.vocabulary_size:
            raise InputError(
                f"reward.init_from: {self.init_from} has {self.decoder.config.vocabulary_size} token ids, a response "
                f"has id {most}: take a reward model of the same tokenizer"
            )
        if not response.prompt:
            raise InputError("a response has no prompt: a reward model scores responses to something")
        if response.finish == "stop" and self.end is not None and tokens[-1:] != [self.end]:
            tokens.append(self.end)
        return tokens

    def _batches(self, sequences: Sequence[tuple[tuple[int, ...], list[int]]]) -> Iterator[list[int]]:
        """Numbers of responses to compute together: those to one prompt are neighbors."""
        place: dict[tuple[int, ...], int] = {}
        for prompt, _ in sequences:
            place.setdefault(prompt, len(place))
        batch: list[int] = []
        tokens = 0
        for number in sorted(range(len(sequences)), key=lambda number: place[sequences[number][0]]):
            prompt, response = sequences[number]
            is_branch = bool(batch) and sequences[batch[-1]][0] == prompt
            size = len(response) + (1 if is_branch else len(prompt))
            if batch and tokens + size > self.batch_tokens:
                yield batch
                batch, tokens, size = [], 0, len(prompt) + len(response)
            batch.append(number)
            tokens += size
        if batch:
            yield batch

    def _score(self, sequences: Sequence[tuple[tuple[int, ...], list[int]]]) -> Tensor:
        """Scores of responses of which those to one prompt are neighbors, float32 [A] on the CPU."""
        assert self.decoder is not None
        row = pack_responses(group_by_prompt(sequences), keep_last_token=True, multiple=ROUND_TO)
        device = self.decoder.output.weight.device
        # Called within a training step, whose autocast would compute in another precision than was asked for.
        with torch.autocast(device.type, enabled=False):
            return response_scores(self.decoder, row.to(device)).cpu()
