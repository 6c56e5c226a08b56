from alignment.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalisedDPO, RobustDPO, SimPO
from alignment.policy import PreferencePolicy
from alignment.reward_ensemble import RewardEnsemble
from alignment.reward_model import RewardModel
from alignment.word_overlap import WordOverlap

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "ORPO",
    "ConservativeDPO",
    "LengthNormalisedDPO",
    "PreferencePolicy",
    "RewardEnsemble",
    "RewardModel",
    "RobustDPO",
    "SimPO",
    "WordOverlap",
]
