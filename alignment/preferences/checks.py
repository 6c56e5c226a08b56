"""Checks of settings shared by preference policies, reward models and policy optimization.

They are functions of what they check and not methods of a common base: the three modules have little else in common.
"""

from typing import Any, Literal

from common.contracts import PairData, attached_data
from common.errors import InputError
from models.config import DecoderConfig
from models.language_model import LanguageModel


def require_pairs(module: Any, trainer: Any) -> None:
    """Refuse data without pairs.

    Raises:
        InputError: for another data module than `PreferenceData`.
    """
    data = attached_data(trainer)
    if data is not None and not isinstance(data, PairData):
        raise InputError(f"{type(module).__name__} learns from pairs: take datamodules.PreferenceData for data")


def refuse_z_loss(module: LanguageModel) -> None:
    """Refuse the z-loss of next-token prediction in a module without next-token loss.

    Raises:
        InputError: for a `z_loss` above 0.
    """
    if module.z_loss:
        raise InputError(f"z_loss={module.z_loss}: {type(module).__name__} has no next-token loss, leave it at 0")


def require_adapter(reference: str | None, config: DecoderConfig, instead: Literal["online", "precomputed"]) -> None:
    """Refuse `reference=adapter_off` for a model without a LoRA adapter.

    Args:
        reference: the module's setting.
        config: shape of the policy.
        instead: reference that the message recommends.

    Raises:
        InputError: when there is no adapter.
    """
    if reference == "adapter_off" and config.lora is None:
        raise InputError(f"reference=adapter_off: there is no adapter, give model.init_args.lora or take {instead}")


def refuse_trained_adapter(reference: str | None, stored: Any, instead: str) -> None:
    """Refuse `reference=adapter_off` for initial weights that hold a trained adapter already.

    Args:
        reference: the module's setting.
        stored: `models.weights.source.WeightSource` of `init_from`, or None.
        instead: references that the message recommends.

    Raises:
        InputError: when they do: without it they are another model.
    """
    if reference == "adapter_off" and stored is not None and stored.config.get("lora") is not None:
        raise InputError(
            f"reference=adapter_off: init_from={stored.path} holds an adapter already, without which it is another "
            f"model; merge it by `main.py convert`, or take {instead}"
        )
