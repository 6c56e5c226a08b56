"""Supervised fine-tuning (SFT): next-token prediction on the responses of conversations.

The code is that of pretraining: `datamodules.SFTData` labels the responses and nothing else, and the loss is the mean
over labels. The class has the name under which fine-tuning is looked for, and its published defaults.
"""

from typing import Any

from models.language_model import LanguageModel
from models.optimizers.adamw import AdamW, OptimizerFactory
from models.optimizers.schedules import Cosine, Schedule


class SFT(LanguageModel):
    """Supervised fine-tuning of a language model, on `datamodules.SFTData`.

    Defaults are those of Llama 2 (Touvron et al. 2023b, section 3.1): AdamW at 2e-5 with weight decay 0.1, cosine decay
    to a tenth without warm-up. A checkpoint of `LanguageModel` continues as one of `SFT` and the other way around.

    Args:
        optimizer: factory of the optimizer; null takes Llama 2's.
        schedule: learning-rate factor by step; null takes Llama 2's.
        further: arguments of `LanguageModel`; `init_from` names the pretrained model.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        **further: Any,
    ) -> None:
        # Not defaults of the signature: a command line would keep their arguments for a class named in their place.
        optimizer = AdamW(learning_rate=2e-5, weight_decay=0.1) if optimizer is None else optimizer
        super().__init__(optimizer, Cosine(warmup_steps=0) if schedule is None else schedule, **further)
