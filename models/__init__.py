from models.decoder import Decoder, DecoderConfig
from models.language_model import LanguageModel
from models.muon import Muon
from models.optim import AdamW, Cosine, WarmupStableDecay

__all__ = ["AdamW", "Cosine", "Decoder", "DecoderConfig", "LanguageModel", "Muon", "WarmupStableDecay"]
