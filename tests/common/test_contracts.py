"""Contracts: the project's own classes follow each protocol, so that a renamed member cannot break one silently."""

import inspect
from types import FunctionType
from typing import Any

import pytest

import common.contracts as contracts
from alignment import PPO, PreferencePolicy, RewardModel
from callbacks import SpikeGuard
from datamodules import PreferenceData, PretrainingData, PromptData, RandomTokens, SFTData
from datamodules.mixing.skipped_samples import SkippedSamples
from models import AdamW, Cosine, Decoder, DecoderConfig, LanguageModel
from models.optimizers import skip_step
from strategies import PipelineParallelStrategy, TensorParallelStrategy
from strategies.parallel.saver import CheckpointSaver

DATA = (PretrainingData, SFTData, PreferenceData, PromptData, RandomTokens)
STRATEGIES = (TensorParallelStrategy, PipelineParallelStrategy)
FOLLOWERS: dict[type, tuple[type, ...]] = {
    contracts.SkippedSamples: (SkippedSamples,),
    contracts.ParallelizableModel: (Decoder,),
    contracts.DecoderModule: (LanguageModel, PPO, RewardModel),
    contracts.WholeBatchLoss: (PreferencePolicy,),
    contracts.WindowedData: (PretrainingData, RandomTokens),
    contracts.BatchedData: DATA,
    contracts.StoredPairs: (PreferenceData,),
    contracts.NamedSources: DATA,
    contracts.ResumableData: DATA,
    contracts.PairData: (PreferenceData,),
    contracts.PromptSource: (PromptData,),
    contracts.SummarizedData: (PretrainingData, SFTData, PreferenceData, PromptData),
    contracts.Preflight: (LanguageModel, RewardModel, PPO, *STRATEGIES),
    contracts.ShardedStrategy: STRATEGIES,
    contracts.ModelParallelStrategy: STRATEGIES,
    contracts.GradientSyncStrategy: STRATEGIES,
    contracts.GatheringStrategy: STRATEGIES,
    contracts.WeightSourcesUser: (PPO,),
    contracts.CheckpointWriter: (CheckpointSaver,),
    contracts.CheckpointingStrategy: STRATEGIES,
    contracts.TimedStrategy: (PipelineParallelStrategy,),
    contracts.NormHistory: (skip_step.NormHistory,),
    contracts.SpikeSkippingModule: (LanguageModel, RewardModel),
    contracts.SettlingCallback: (SpikeGuard,),
    contracts.WaitingCallback: (SpikeGuard,),
}
OBJECTS = {
    Decoder: lambda: Decoder(DecoderConfig(vocabulary_size=32)),
    RandomTokens: RandomTokens,
    TensorParallelStrategy: TensorParallelStrategy,
    PipelineParallelStrategy: lambda: PipelineParallelStrategy(pipeline_parallel_size=2),
    SpikeGuard: SpikeGuard,
    LanguageModel: lambda: LanguageModel(AdamW(), Cosine(0, 0.1), DecoderConfig(vocabulary_size=32)),
    skip_step.NormHistory: lambda: skip_step.NormHistory(skip_step.SpikeSkip()),
}
"""How to make one of those classes whose attributes are checked; the others inherit theirs."""
PROTOCOLS = [found for found in vars(contracts).values() if getattr(found, "_is_protocol", False)]


def members(protocol: type) -> dict[str, Any]:
    """Methods and properties of a protocol by name, and its attributes with None."""
    found: dict[str, Any] = {}
    for each in protocol.__mro__:
        if getattr(each, "_is_protocol", False):
            found |= {n: v for n, v in vars(each).items() if isinstance(v, FunctionType | property) and n[0] != "_"}
            found |= dict.fromkeys(vars(each).get("__annotations__", {}))
    return found


def test_every_protocol_has_a_follower_here() -> None:
    assert {each for each in PROTOCOLS if each.__module__ == contracts.__name__} == FOLLOWERS.keys()


@pytest.mark.parametrize(
    ("protocol", "follower"), [(protocol, each) for protocol, followers in FOLLOWERS.items() for each in followers]
)
def test_a_class_follows_its_protocol(protocol: type, follower: type) -> None:
    for name, member in members(protocol).items():
        if isinstance(member, FunctionType):
            wanted, given = (list(inspect.signature(each).parameters) for each in (member, getattr(follower, name)))
            assert given[: len(wanted)] == wanted, name
        elif isinstance(member, property):
            # An attribute of objects does as well.
            assert declares(follower, name) or hasattr(made(follower), name), name
        else:
            assert declares(follower, name) or hasattr(made(follower), name), name


def declares(follower: type, name: str) -> bool:
    """Whether a class has a member, or says by an annotation that its objects have it."""
    return hasattr(follower, name) or any(name in vars(each).get("__annotations__", {}) for each in follower.__mro__)


def made(follower: type) -> Any:
    """An object of the class, or of one that sets the same attributes."""
    if follower in OBJECTS:
        return OBJECTS[follower]()
    return next(make for each, make in OBJECTS.items() if _shares_base(follower, each))()


def _shares_base(follower: type, other: type) -> bool:
    """Whether both derive from one class of `datamodules` or `models`, which sets the attributes of both."""
    bases = {each for each in follower.__mro__ if each.__module__.split(".")[0] in ("datamodules", "models")}
    return bool(bases & set(other.__mro__))
