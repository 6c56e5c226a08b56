from alignment.constitutional.ai_feedback import Preferences
from alignment.constitutional.endpoint_judge import EndpointJudge
from alignment.constitutional.judge import DecoderJudge
from alignment.constitutional.revisions import Revisions
from alignment.preferences.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalisedDPO, RobustDPO, SimPO
from alignment.preferences.preference_policy import PreferencePolicy
from alignment.preferences.reward_ensemble import RewardEnsemble
from alignment.preferences.reward_model import RewardModel
from alignment.reinforcement.advantages import GAE, GroupRelative, LeaveOneOut, ReinforcePlusPlus
from alignment.reinforcement.engines.vllm import VLLMEngine
from alignment.reinforcement.kl import AdaptiveKL, FixedKL, KLPenalty
from alignment.reinforcement.metrics import Alarms
from alignment.reinforcement.minibatches import Updates
from alignment.reinforcement.policy_loss import Surrogate
from alignment.reinforcement.ppo import PPO
from alignment.reinforcement.rollouts import DecoderEngine
from alignment.rewards.base import OverlongPenalty, WeightedSum
from alignment.rewards.code_tests import CodeTests, Limits
from alignment.rewards.reward_model_score import RewardModelScore
from alignment.rewards.rouge import WordOverlap
from alignment.rewards.verifiable import Arithmetic, ExactMatch, LeadingMatch, Pattern

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
