"""Rewards that compare models: their reward models' weights, tokenizer and template, which all have to share."""

from pathlib import Path

from alignment.rewards.base import Reward
from alignment.rewards.reward_model_score import RewardModelScore
from common.errors import InputError
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from models.weights.source import WeightSource


def reward_models(judges: dict[str, Reward]) -> dict[str, Path]:
    """Where the reward models within judges are stored."""
    members = [(kind, member) for kind, judge in judges.items() for member in judge.members()]
    return {kind: Path(member.init_from) for kind, member in members if isinstance(member, RewardModelScore)}


def open_weights(judge: Reward, tokenizer: Tokenizer) -> None:
    """Give the reward models within a judge their weights."""
    for member in judge.members():
        if isinstance(member, RewardModelScore):
            member.load_from(WeightSource(Path(member.init_from)), tokenizer.eos)


def shared_tokenizer(paths: dict[str, Path]) -> Tokenizer:
    """The tokenizer that all have: probabilities of tokens cannot be compared over two."""
    found = {name: load_tokenizer(find_tokenizer(path)) for name, path in paths.items()}
    (first, tokenizer), *others = found.items()
    if differing := [name for name, other in others if other.model != tokenizer.model]:
        raise InputError(f"{differing[0]} has another tokenizer than {first}: compare models of one tokenizer")
    return tokenizer
