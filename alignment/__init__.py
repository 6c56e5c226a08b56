from alignment.code_execution import CodeTests, Limits
from alignment.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalisedDPO, RobustDPO, SimPO
from alignment.policy import PreferencePolicy
from alignment.reward_ensemble import RewardEnsemble
from alignment.reward_model import RewardModel
from alignment.reward_score import RewardModelScore
from alignment.rewards import OverlongPenalty, WeightedSum
from alignment.verifiable import Arithmetic, ExactMatch, Pattern
from alignment.word_overlap import WordOverlap

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "ORPO",
    "Arithmetic",
    "CodeTests",
    "ConservativeDPO",
    "ExactMatch",
    "LengthNormalisedDPO",
    "Limits",
    "OverlongPenalty",
    "Pattern",
    "PreferencePolicy",
    "RewardEnsemble",
    "RewardModel",
    "RewardModelScore",
    "RobustDPO",
    "SimPO",
    "WeightedSum",
    "WordOverlap",
]
