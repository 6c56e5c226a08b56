"""Preflight checks of policy optimization: data, settings and layouts that are refused before processes start.

They read the Trainer's configuration alone, so that a mistake costs no launch of many processes.
"""

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

from alignment.preferences.checks import refuse_trained_adapter
from common.contracts import NamedSources, attached_data
from common.errors import InputError


def refuse_settings(name: str, trainer: Any, reference: str | None, stored: Any) -> None:
    """Refuse what cannot work.

    Args:
        name: class of the module, for messages.
        trainer: not yet started.
        reference: setting of the reference.
        stored: `models.weights.source.WeightSource` of `init_from`, or None.

    Raises:
        InputError: for data without prompts, settings of Lightning that have no effect here, layouts in which no rank
            can decode, and a reference that would not be the initial model.
    """
    data = attached_data(trainer)
    if data is not None and not (isinstance(data, NamedSources) and "prompts" in data.source_names):
        raise InputError(f"{name} responds to prompts: take datamodules.PromptData for data")
    if trainer.gradient_clip_val:
        raise InputError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val}: {name} clips each model by itself, set it to null "
            "and model.init_args.optimization.max_gradient_norm instead"
        )
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: {name} splits batches itself, set it "
            "to 1 and model.init_args.optimization.microbatch_tokens instead"
        )
    sizes = getattr(trainer.strategy, "sizes", None)
    if sizes is not None and max(sizes.tp, sizes.pp) > 1:
        raise InputError(
            f"{name} on {sizes}: responses are decoded by a whole model on every rank, take data_parallel_shard_size "
            "instead"
        )
    if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
        raise InputError(
            f"trainer.strategy={type(trainer.strategy).__name__}: {name} decodes with whole weights, take "
            "strategies.TensorParallelStrategy, which is FSDP2"
        )
    refuse_trained_adapter(reference, stored, instead="online")
