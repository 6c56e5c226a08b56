from models.decoder import Decoder, DecoderConfig
from models.language_model import LanguageModel
from models.optimizers.adamw import AdamW
from models.optimizers.muon import Muon
from models.optimizers.schedules import Cosine, WarmupStableDecay
from models.optimizers.skip_step import SpikeSkip

__all__ = ["AdamW", "Cosine", "Decoder", "DecoderConfig", "LanguageModel", "Muon", "SpikeSkip", "WarmupStableDecay"]
