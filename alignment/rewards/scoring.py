"""Scoring of responses by any reward: a score each, or one line that names the reward and the row.

Rewards are the part of a run that users write themselves. A traceback from within a batch of a thousand responses says
neither which of them it was nor which of two rewards; finding out costs calls with one response each, only then.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward, WeightedSum
from common.errors import InputError


def scores_of(reward: Reward, responses: Sequence[Response], name: str) -> Tensor:
    """Scores of responses by a reward, float32 [A] on the CPU.

    Args:
        reward: the reward.
        responses: responses to score.
        name: what the reward is for, in messages.

    Raises:
        InputError: where it raises, or gives anything but one finite number each.
    """
    return _scores(reward, responses, f"{name}={type(reward).__name__}")


def _scores(reward: Reward, responses: Sequence[Response], named: str) -> Tensor:
    if isinstance(reward, WeightedSum):
        return reward.weigh(
            [_scores(part, responses, f"{named} of {type(part).__name__}") for part in reward.rewards]
        )  # fmt: skip
    try:
        scores: Any = reward(responses)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(f"{named} raises {_about(reward, responses, error)}") from error
    wanted = f"for {len(responses)} responses: it must give a tensor with one number each"
    if not isinstance(scores, Tensor):
        raise InputError(f"{named} gives {type(scores).__name__} {wanted}")
    if scores.shape != (len(responses),) or scores.is_complex():
        kind = f"a tensor of shape {list(scores.shape)} and {str(scores.dtype).removeprefix('torch.')}"
        raise InputError(f"{named} gives {kind} {wanted}")
    scores = scores.detach().to(device="cpu", dtype=torch.float32)
    if not scores.isfinite().all():
        number = int((~scores.isfinite()).nonzero()[0])
        said = f"{scores[number].item()} for the response to {shown(responses[number].row)}"
        raise InputError(f"{named} gives {said}: it must give each a finite number")
    return scores


def check_rows(rewards: Mapping[str, Reward], rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse rows that responses could not be scored with.

    Args:
        rewards: rewards by what they are for, in messages.
        rows: rows of all prompts.

    Raises:
        InputError: naming the reward, the row and what is missing.
    """
    for number, row in enumerate(rows):
        for name, reward in rewards.items():
            try:
                reward.check(row)
            except Exception as error:
                what = str(error) if isinstance(error, InputError) else _one_line(error)
                named = f"{name}={type(reward).__name__}"
                raise InputError(f"{named} refuses row {number} of the prompts, {shown(row)}: {what}") from error


def shown(row: Mapping[str, Any]) -> str:
    """The beginning of a row's prompt, or of the row, for people."""
    said: Any = row
    for key in ("prompt", "messages", "chosen"):
        if row.get(key) is not None:
            said = row[key]
            break
    if isinstance(said, list) and said and isinstance(said[-1], Mapping):
        said = next((turn["content"] for turn in said if turn.get("role") == "user"), said)
    text = said if isinstance(said, str) else repr(said)
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _about(reward: Reward, responses: Sequence[Response], error: Exception) -> str:
    """An error, and the response it is raised for, found by asking for one after another."""
    for response in responses:
        try:
            reward([response])
        except Exception as alone:
            return f"{_one_line(alone)} for the response to {shown(response.row)}"
    return f"{_one_line(error)} for {len(responses)} responses together"


def _one_line(error: Exception) -> str:
    return " ".join(repr(error).split())[:200]
