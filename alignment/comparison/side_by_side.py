"""Side-by-side comparison of models on the same prompts: KL divergence from one of them, and win rates.

Prompts and responses are computed packed, end to end in one row, as in training; both models of a KL divergence see the
very text that one of them sampled.

Shape suffixes: A responses, P prompts, S responses to a prompt, N tokens of responses, T time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.comparison.best_of_n import best_of_n
from alignment.comparison.intervals import Interval, bootstrap, wilson, wins
from alignment.reinforcement.kl import best_of_n_kl
from alignment.rewards.base import Response
from models.decoder import Decoder
from models.packed_batch import pack_responses, response_states, sum_by_response


def rows_of(responses: Sequence[Response], batch_tokens: int) -> Iterator[range]:
    """Numbers of responses computed together: at most `batch_tokens` tokens, unless one response alone has more."""
    start = 0
    while start < len(responses):
        stop, size = start, 0
        while stop < len(responses) and (stop == start or size + _length(responses[stop]) <= batch_tokens):
            size += _length(responses[stop])
            stop += 1
        yield range(start, stop)
        start = stop


def _length(response: Response) -> int:
    return len(response.prompt) + len(response.tokens)


@torch.inference_mode()
def kl_estimates(
    decoder: Decoder, reference: Decoder, responses: Sequence[Response], temperature: float, batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Two estimates of KL(model || reference) from each response, in nats, float64 [A] both.

    The sum over a response's tokens of the exact KL of the next token (Amini et al. 2025: the same mean as the second
    and less variance, never negative), and the log-ratio of the whole response. Responses are samples of the model.

    Args:
        decoder, reference: language models on one device.
        responses: samples of the first.
        temperature: at which they were sampled.
        batch_tokens: tokens computed together.
    """
    exact, sampled = torch.zeros(2, len(responses), dtype=torch.float64)
    if decoder is reference:
        return exact, sampled
    for numbers in rows_of(responses, batch_tokens):
        chosen = [responses[number] for number in numbers]
        row = pack_responses([(response.prompt, [response.tokens]) for response in chosen])
        row = row.to(decoder.tok_embeddings.weight.device)
        p, q = (response_states(model, row) / temperature for model in (decoder, reference))
        kl_T = decoder.output.kl(p, reference.output, q)
        ratios_T = decoder.output.log_probabilities(p, row.targets) - reference.output.log_probabilities(q, row.targets)
        exact[numbers.start : numbers.stop] = sum_by_response(kl_T.double(), row).cpu()
        sampled[numbers.start : numbers.stop] = sum_by_response(ratios_T.double(), row).cpu()
    return exact, sampled


@dataclass
class SideBySide:
    """Responses, scores and KL divergences of every model.

    Attributes:
        reference: name of the model the others are held against.
        responses: by model, `samples` for each prompt.
        scores: by judge and model, [A].
        KL divergences: by model, see `kl`.
        samples: responses to a prompt.
    """

    reference: str
    responses: dict[str, list[Response]]
    scores: dict[str, dict[str, Tensor]]
    kl: dict[str, tuple[Tensor, Tensor]]
    samples: int

    def by_prompt(self, values_A: Tensor) -> Tensor:
        """[P, S]."""
        return values_A.view(-1, self.samples)

    def mean(self, values_A: Tensor) -> Interval:
        """Over prompts."""
        return bootstrap(self.by_prompt(values_A.double()).mean(1))

    def win_rate(self, judge: str, name: str, other: str) -> Interval:
        """Win rate of a model's responses over another's to the same prompts."""
        scores = self.scores[judge]
        return wilson(wins(self.by_prompt(scores[name]), self.by_prompt(scores[other])))

    def of_model(self, name: str) -> dict[str, Any]:
        """The numbers of one model, each with its interval; with several responses to a prompt also what the best of
        them by the first judge are worth, and the bound on how far those are from the model.
        """
        responses = self.responses[name]
        exact, sampled = self.kl[name]
        lengths = torch.tensor([len(one.tokens) for one in responses], dtype=torch.float64)
        stopped = torch.tensor([one.finish == "stop" for one in responses], dtype=torch.float64)
        numbers = {"kl": self.mean(exact), "kl_by_log_ratios": self.mean(sampled), "tokens": self.mean(lengths)}
        numbers["stopped"] = wilson(self.by_prompt(stopped).mean(1))
        for judge, scores in self.scores.items():
            numbers[judge] = self.mean(scores[name])
            numbers[f"win_rate_by_{judge}"] = self.win_rate(judge, name, self.reference)
        further = {"kl_per_token": float(exact.sum() / lengths.sum())}
        if self.samples > 1:
            # What the first judge could give without training, and at which price: the yardstick of a policy's.
            best = best_of_n(next(iter(self.scores.values()))[name], self.samples)
            for judge, scores in self.scores.items():
                numbers[f"{judge}_of_best"] = bootstrap(scores[name][best].double())
            further["kl_of_best"] = best_of_n_kl(self.samples)
        return {key: interval._asdict() for key, interval in numbers.items()} | further

    def against_each_other(self) -> dict[str, dict[str, dict[str, float]]]:
        """Win rate by judge, model and other model."""
        names = list(self.responses)
        return {
            judge: {name: {other: self.win_rate(judge, name, other).value for other in names} for name in names}
            for judge in self.scores
        }
