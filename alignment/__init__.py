"""Names of policies, reward models, rewards and judges that YAML uses as `alignment.NAME`, imported when first used."""

from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from alignment.constitutional.ai_feedback import Preferences
    from alignment.constitutional.endpoint_judge import EndpointJudge
    from alignment.constitutional.judge import DecoderJudge
    from alignment.constitutional.revisions import Revisions
    from alignment.preferences.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalizedDPO, RobustDPO, SimPO
    from alignment.preferences.preference_policy import PreferencePolicy
    from alignment.preferences.reward_ensemble import RewardEnsemble
    from alignment.preferences.reward_model import RewardModel
    from alignment.reinforcement.advantages import (
        GAE,
        BatchNormalizedAdvantage,
        GroupRelativeAdvantage,
        LeaveOneOutAdvantage,
    )
    from alignment.reinforcement.engines.decoder import DecoderEngine
    from alignment.reinforcement.engines.vllm import VLLMEngine
    from alignment.reinforcement.kl import AdaptiveKL, FixedKL, KLPenalty
    from alignment.reinforcement.metrics import Alarms
    from alignment.reinforcement.minibatches import PPOUpdates
    from alignment.reinforcement.policy_loss import ClippedPolicyLoss
    from alignment.reinforcement.policy_optimization import PolicyOptimization
    from alignment.reinforcement.ppo import GRPO, PPO, RLOO, DrGRPO, ReinforcePlusPlus
    from alignment.rewards.base import OverlongPenalty, WeightedSum
    from alignment.rewards.code_tests import CodeTests, Limits
    from alignment.rewards.reward_model_score import RewardModelScore
    from alignment.rewards.rouge import RougeN
    from alignment.rewards.verifiable import Arithmetic, ExactMatch, Pattern, PrefixMatch

__all__ = [
    "DPO",
    "GAE",
    "GRPO",
    "IPO",
    "KTO",
    "ORPO",
    "PPO",
    "RLOO",
    "AdaptiveKL",
    "Alarms",
    "Arithmetic",
    "BatchNormalizedAdvantage",
    "ClippedPolicyLoss",
    "CodeTests",
    "ConservativeDPO",
    "DecoderEngine",
    "DecoderJudge",
    "DrGRPO",
    "EndpointJudge",
    "ExactMatch",
    "FixedKL",
    "GroupRelativeAdvantage",
    "KLPenalty",
    "LeaveOneOutAdvantage",
    "LengthNormalizedDPO",
    "Limits",
    "OverlongPenalty",
    "PPOUpdates",
    "Pattern",
    "PolicyOptimization",
    "PreferencePolicy",
    "Preferences",
    "PrefixMatch",
    "ReinforcePlusPlus",
    "Revisions",
    "RewardEnsemble",
    "RewardModel",
    "RewardModelScore",
    "RobustDPO",
    "RougeN",
    "SimPO",
    "VLLMEngine",
    "WeightedSum",
]

__getattr__ = lazy_exports(__name__, __file__)
