"""Names of models, optimizers and schedules that YAML uses as `models.NAME`, imported when they are first used."""

from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
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

__getattr__ = lazy_exports(__name__, __file__)
