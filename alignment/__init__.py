from alignment.advantages import GAE, GroupRelative, LeaveOneOut, ReinforcePlusPlus
from alignment.ai_preferences import Preferences
from alignment.code_execution import CodeTests, Limits
from alignment.critique import Revisions
from alignment.divergence import AdaptiveKL, FixedKL, KLPenalty
from alignment.endpoint import EndpointJudge
from alignment.judge import DecoderJudge
from alignment.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalisedDPO, RobustDPO, SimPO
from alignment.minibatches import Updates
from alignment.policy import PreferencePolicy
from alignment.policy_gradient import Surrogate
from alignment.ppo import PPO
from alignment.ppo_metrics import Alarms
from alignment.reward_ensemble import RewardEnsemble
from alignment.reward_model import RewardModel
from alignment.reward_score import RewardModelScore
from alignment.rewards import OverlongPenalty, WeightedSum
from alignment.rollout import DecoderEngine
from alignment.verifiable import Arithmetic, ExactMatch, LeadingMatch, Pattern
from alignment.vllm_engine import VLLMEngine
from alignment.word_overlap import WordOverlap

__all__ = [
    "DPO",
    "GAE",
    "IPO",
    "KTO",
    "ORPO",
    "PPO",
    "AdaptiveKL",
    "Alarms",
    "Arithmetic",
    "CodeTests",
    "ConservativeDPO",
    "DecoderEngine",
    "DecoderJudge",
    "EndpointJudge",
    "ExactMatch",
    "FixedKL",
    "GroupRelative",
    "KLPenalty",
    "LeadingMatch",
    "LeaveOneOut",
    "LengthNormalisedDPO",
    "Limits",
    "OverlongPenalty",
    "Pattern",
    "PreferencePolicy",
    "Preferences",
    "ReinforcePlusPlus",
    "Revisions",
    "RewardEnsemble",
    "RewardModel",
    "RewardModelScore",
    "RobustDPO",
    "SimPO",
    "Surrogate",
    "Updates",
    "VLLMEngine",
    "WeightedSum",
    "WordOverlap",
]
