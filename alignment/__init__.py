from alignment.ai_preferences import Preferences
from alignment.critique import Revisions
from alignment.endpoint import EndpointJudge
from alignment.judge import DecoderJudge
from alignment.losses import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalisedDPO, RobustDPO, SimPO
from alignment.policy import PreferencePolicy
from alignment.reward_ensemble import RewardEnsemble
from alignment.reward_model import RewardModel

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "ORPO",
    "ConservativeDPO",
    "DecoderJudge",
    "EndpointJudge",
    "LengthNormalisedDPO",
    "PreferencePolicy",
    "Preferences",
    "Revisions",
    "RewardEnsemble",
    "RewardModel",
    "RobustDPO",
    "SimPO",
]
