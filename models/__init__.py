from models.decoder import Decoder, DecoderConfig
from models.language_model import LanguageModel
from models.optim import AdamW, Cosine, WarmupStableDecay

__all__ = ["AdamW", "Cosine", "Decoder", "DecoderConfig", "LanguageModel", "WarmupStableDecay"]
