from models.decoder import Decoder, DecoderConfig
from models.language_model import LanguageModel
from models.muon import Muon
from models.optim import AdamW, Cosine, WarmupStableDecay
from models.spikes import SpikeSkip

__all__ = ["AdamW", "Cosine", "Decoder", "DecoderConfig", "LanguageModel", "Muon", "SpikeSkip", "WarmupStableDecay"]
