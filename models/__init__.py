"""Names of models, optimizers and schedules that YAML uses as `models.NAME`.

They import everything behind them; code of the project imports from the modules, so that a command loads what it uses.
"""

from models.decoder import Decoder, DecoderConfig
from models.language_model import LanguageModel
from models.optimizers.adamw import AdamW
from models.optimizers.muon import Muon
from models.optimizers.schedules import Cosine, WarmupStableDecay
from models.optimizers.skip_step import SpikeSkip
from models.sft import SFT

__all__ = [
    "SFT", "AdamW", "Cosine", "Decoder", "DecoderConfig", "LanguageModel", "Muon", "SpikeSkip", "WarmupStableDecay",
]  # fmt: skip
