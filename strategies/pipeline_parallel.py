"""Pipeline parallelism under the Trainer's ordinary loop: stages of layers on an outer mesh axis, by torch's schedules.

The LightningModule's step stays what it is. Its one call `forward(batch, head)` is taken over here: a schedule runs
forward and backward of all micro-batches at once, and the loss handed back is a node of autograd whose backward gives
each parameter the gradient that the schedule already made. So Lightning may zero gradients between step and backward,
scale the loss and call every hook, as for any model. Accumulated batches are folded into one schedule: a bubble is
paid once a step, not once a batch. Stages know the shapes they exchange beforehand, because torch's way of finding
out runs the model once more and throws gradients away.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import P2POp
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor

from common.errors import InputError
from strategies.parallel.gradient_norm import gradient_norm, settle_gradients
from strategies.parallel.pipeline_stages import layer_costs, prune, split_layers, stage_view
from strategies.tensor_parallel import TensorParallelStrategy

Schedule = Literal["gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv"]

_SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved_1f1b": ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": ScheduleInterleavedZeroBubble,
    "zbv": ScheduleZBVZeroBubble,
}
ONE_STAGE = ("gpipe", "1f1b")
ZERO_BUBBLE = ("interleaved_zero_bubble", "zbv")

Batch = dict[str, Any]
HeadFunction = Callable[[Tensor, Batch], Tensor]
Watch = Callable[[str], AbstractContextManager[None]]
"""Told when a `schedule` runs and, within it, each `action`: whoever keeps time can say what waiting was for."""


def _unwatched(part: str) -> AbstractContextManager[None]:
    return nullcontext()


class PipelineParallelStrategy(TensorParallelStrategy):
    """Spreads a model over the mesh (pp, dp_replicate, dp_shard, tp).

    Args:
        pipeline_parallel_size: processes in a row, each with its stages of the layers.
        schedule: gpipe (Huang et al. 2019), 1f1b (Narayanan et al. 2019, PipeDream-Flush), interleaved_1f1b
            (Narayanan et al. 2021), interleaved_zero_bubble and zbv (Qi et al. 2024, 2024b).
        microbatches: pieces that each batch of the data is cut into; accumulated batches add up.
        stages_per_rank: stages a process holds; null takes 1, or 2 for the schedules that interleave.
        further: arguments of `TensorParallelStrategy`.

    Raises:
        InputError: for a layout that cannot work, before a process is started.
    """

    def __init__(
        self,
        pipeline_parallel_size: int,
        schedule: Schedule = "1f1b",
        microbatches: int = 4,
        stages_per_rank: int | None = None,
        **further: Any,
    ) -> None:
        super().__init__(**further)
        self.asked["pp"] = pipeline_parallel_size
        self.schedule, self.microbatches = schedule, microbatches
        self.stages_per_rank = stages_per_rank or (1 if schedule in ONE_STAGE else 2)
        self._waiting: list[Batch] = []
        self._schedules: dict[Any, Any] = {}
        self._views: list[nn.Module] = []
        self._pieces: list[Batch] = []
        self._head: HeadFunction | None = None
        self.watch: Watch = _unwatched

    # Layout

    @property
    def stages(self) -> int:
        """Stages of the whole pipeline."""
        return self.sizes.pp * self.stages_per_rank

    def preflight(self, trainer: Any) -> None:
        """Refuse what no schedule can run."""
        if self.microbatches < 1:
            raise InputError(f"microbatches={self.microbatches}: must be at least 1")
        size = self.asked["pp"]
        if isinstance(size, int) and size < 2:
            raise InputError(
                f"pipeline_parallel_size={size}: a pipeline needs at least 2 processes in a row, without one take "
                "strategies.TensorParallelStrategy"
            )
        if getattr(trainer.lightning_module, "whole_rows", False):
            raise InputError(
                f"{type(trainer.lightning_module).__name__} in a pipeline: its loss needs all pairs of a batch in one "
                "row, which a pipeline cannot cut; take strategies.TensorParallelStrategy"
            )
        if getattr(getattr(trainer.lightning_module, "config", None), "experts", None) is not None:
            raise InputError(
                "decoder.experts in a pipeline: the loss that balances them is known to one stage only; take "
                "TensorParallelStrategy with data_parallel_shard_size"
            )
        if getattr(getattr(trainer.lightning_module, "config", None), "lora", None) is not None:
            raise InputError(
                "model.init_args.lora in a pipeline: stages wait for gradients that frozen matrices do not send; take "
                "strategies.TensorParallelStrategy"
            )
        super().preflight(trainer)
        name, count = self.schedule, self.microbatches * trainer.accumulate_grad_batches
        if name not in _SCHEDULES:
            raise InputError(f"schedule={name}: choose one of {', '.join(_SCHEDULES)}")
        right = self.stages_per_rank == 1 if name in ONE_STAGE else self.stages_per_rank >= 2
        if not right or (name == "zbv" and self.stages_per_rank != 2):
            need = {"zbv": "exactly 2"}.get(name, "exactly 1" if name in ONE_STAGE else "at least 2")
            raise InputError(
                f"stages_per_rank={self.stages_per_rank}: schedule {name} needs {need}, change one of them"
            )
        if self.compile_backend is not None and name in ZERO_BUBBLE:
            raise InputError(
                f"compile_backend={self.compile_backend}: schedule {name} cuts the backward pass in two, which "
                "compiled blocks cannot; set it to null or take 1f1b or interleaved_1f1b"
            )
        if self.float8 and name in ZERO_BUBBLE:
            raise InputError(
                f"float8=true: schedule {name} cuts the backward pass in two, which 8-bit products make in one piece; "
                "set it to false or take 1f1b or interleaved_1f1b"
            )
        if self.activation_checkpointing != "none" and name in ZERO_BUBBLE:
            # torch's `stage_backward_weight` enters the graph once for each group of parameters, and checkpointing
            # computes a block again in each: ten times a block instead of once. Selective would raise at the second.
            raise InputError(
                f"activation_checkpointing={self.activation_checkpointing}: schedule {name} goes through a block's "
                "backward graph once for each of its matrices, and recomputes the block each time; take none, or 1f1b "
                "or interleaved_1f1b"
            )
        batches = trainer.datamodule.batch_sizes() if hasattr(trainer.datamodule, "batch_sizes") else []
        for batch in batches:
            if batch % self.microbatches:
                common = math.gcd(*batches)
                fits = [size for size in range(1, common + 1) if common % size == 0]
                raise InputError(
                    f"microbatches={self.microbatches} does not divide batch_size={batch}: choose one of {fits}"
                )
        fewest = 1 if name == "gpipe" else self.sizes.pp if name.startswith("interleaved") else self.stages
        if count < fewest:
            raise InputError(
                f"microbatches={self.microbatches} x accumulate_grad_batches={trainer.accumulate_grad_batches}: "
                f"schedule {name} over {self.stages} stages needs at least {fewest}, raise one of them"
            )
        if name.startswith("interleaved") and count % max(1, count // self.sizes.pp):
            raise InputError(
                f"{count} micro-batches a step: schedule {name} needs a multiple of {count // self.sizes.pp} "
                f"(rounds of {self.sizes.pp}), change microbatches"
            )
        layers = getattr(getattr(trainer.lightning_module, "config", None), "layers", None)
        if layers is not None and layers < self.stages:
            raise InputError(f"layers={layers}: fewer than the {self.stages} pipeline stages, use fewer stages")

    def owner(self, stage: int) -> int:
        """Rank along pp that holds a stage: in turn, or there and back again for a V."""
        if self.schedule == "zbv" and stage >= self.sizes.pp:
            return 2 * self.sizes.pp - 1 - stage
        return stage % self.sizes.pp

    @property
    def my_stages(self) -> list[int]:
        """Stages of this process, in order."""
        rank = self.device_mesh.get_local_rank("pp")
        return [stage for stage in range(self.stages) if self.owner(stage) == rank]

    @property
    def group(self) -> torch.distributed.ProcessGroup:
        """The processes of this pipeline."""
        return self.device_mesh.get_group("pp")

    def parallelize(self, model: Any) -> None:
        """Keep this process's stages, then do to them what is done to a whole model."""
        module = cast(Any, self.lightning_module)
        if len(self.parallelizable_models()) > 1:
            raise InputError(
                f"{type(module).__name__} holds {len(self.parallelizable_models())} models: a pipeline runs one, take "
                "strategies.TensorParallelStrategy"
            )
        sequence_length = getattr(module.trainer.datamodule, "sequence_length", 1)
        ranges = split_layers(layer_costs(model.config, sequence_length), self.stages)
        self.tied = model.output.weight is model.tok_embeddings.weight
        prefix = next(name for name, child in module.named_modules() if child is model)
        self.alias = {f"{prefix}.output.weight": f"{prefix}.tok_embeddings.weight"} if self.tied else {}
        self.width, self.dtype = model.config.width, model.tok_embeddings.weight.dtype
        prune(model, [ranges[stage] for stage in self.my_stages], self.stages, ranges)
        self._views = [
            stage_view(model, ranges[stage], stage == 0, stage == self.stages - 1) for stage in self.my_stages
        ]
        self.pipelined = model
        super().parallelize(model)
        for view in cast(list[Any], self._views):
            view.forward = self._in_precision(view.forward)
        module.forward = self.forward

    def roots(self, model: nn.Module) -> list[nn.Module]:
        """The stages: the model itself is never called."""
        return self._views

    def _in_precision(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The schedule's backward passes must not run under the autocast of the step, its forward passes must."""

        def run(*arguments: Any, **keywords: Any) -> Tensor:
            with self.precision_plugin.forward_context():
                return function(*arguments, **keywords)

        return run

    # Steps

    def forward(self, batch: Batch, head: HeadFunction) -> Tensor:
        """What `LightningModule.forward(batch, head)` is in a pipeline.

        Returns:
            The same on all ranks of the pipeline. While batches are accumulated, zero; then the sum over all of them.
        """
        if not torch.is_grad_enabled():
            return self.evaluate(batch, head)
        self._waiting.append(batch)
        if cast(Any, self.lightning_module).trainer.fit_loop._should_accumulate():
            return torch.zeros((), device=self.root_device, requires_grad=True)
        batches, self._waiting = self._waiting, []
        return self.train(batches, head)

    def train(self, batches: list[Batch], head: HeadFunction) -> Tensor:
        """Forward and backward of all batches by the schedule; the gradients wait in the loss for its `backward`."""
        self._pieces = [piece for batch in batches for piece in cut(batch, self.microbatches)]
        self._head = head
        parameters = [parameter for _, parameter in self.named_parameters()]
        for parameter in parameters:
            parameter.grad = None
        tokens = torch.cat([batch["tokens"] for batch in batches])
        documents = torch.cat([batch["document_ids"] for batch in batches])
        schedule = self._schedule(len(self._pieces), tokens.shape[0] // len(self._pieces), tokens.shape[1])
        losses: list[Tensor] = []
        with torch.autocast(self.root_device.type, enabled=False), self.watch("schedule"):
            schedule.step(
                *([tokens] if 0 in self.my_stages else []),
                target=torch.arange(len(self._pieces)),
                losses=losses,
                return_outputs=False,
                document_ids_BT=documents,
            )
        loss = torch.zeros((), device=self.root_device)
        if losses:
            loss += torch.stack([piece.detach() for piece in losses]).sum()
        # Zeros elsewhere: the last stage is not on the last rank in every schedule.
        torch.distributed.all_reduce(loss, group=self.group)
        settle_gradients(parameters)
        if self.tied:
            self._add_tied_gradients()
        made = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad = None
        return cast(Tensor, _HandOver.apply(torch.zeros((), device=self.root_device, requires_grad=True), loss, made))

    def _microbatch_loss(self, hidden: Tensor, index: Tensor) -> Tensor:
        assert self._head is not None
        with self.precision_plugin.forward_context():
            return self._head(hidden, self._pieces[int(index)])

    def _schedule(self, count: int, rows: int, length: int) -> Any:
        """The schedule over `count` micro-batches of [rows, length], made once."""
        key = (count, rows, length)
        if key not in self._schedules:
            hidden = torch.empty(
                rows, length // self.sizes.tp, self.width, dtype=self.dtype, device="meta", requires_grad=True
            )
            tokens = torch.empty(rows, length, dtype=torch.int64, device="meta")
            stages = [
                PipelineStage(
                    view,
                    stage,
                    self.stages,
                    self.root_device,
                    input_args=tokens if stage == 0 else hidden,
                    output_args=hidden,
                    group=self.group,
                )
                for stage, view in zip(self.my_stages, self._views, strict=True)
            ]
            for each in stages:
                for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
                    setattr(each, name, self._as_action(getattr(each, name)))
            chosen = stages[0] if self.schedule in ONE_STAGE else stages
            # Losses are shares of the whole batch already: nothing is to be divided by the number of pieces.
            schedule = _SCHEDULES[self.schedule](chosen, count, loss_fn=self._microbatch_loss, scale_grads=False)
            self._schedules[key] = schedule
        return self._schedules[key]

    def _as_action(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            with self.watch("action"):
                return function(*arguments, **keywords)

        return run

    def _add_tied_gradients(self) -> None:
        """Give the two copies of a tied matrix, in the first and in the last stage, the sum of their gradients."""
        first, last = 0 in self.my_stages, self.stages - 1 in self.my_stages
        if not (first or last):
            return
        embedding, output = self.pipelined.tok_embeddings, self.pipelined.output
        if first and last:
            total = embedding.weight.grad + output.weight.grad
            embedding.weight.grad, output.weight.grad = total, total.clone()
            return
        gradient = (embedding if first else output).weight.grad
        mine = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        peer = torch.distributed.get_global_rank(self.group, self.owner(self.stages - 1 if first else 0))
        theirs = torch.empty_like(mine)
        exchange = [
            P2POp(torch.distributed.isend, mine.contiguous(), peer, self.group),
            P2POp(torch.distributed.irecv, theirs, peer, self.group),
        ]
        for work in torch.distributed.batch_isend_irecv(exchange):
            work.wait()
        mine += theirs

    def evaluate(self, batch: Batch, head: HeadFunction) -> Tensor:
        """Pieces of the batch pass through the stages one after the other, and every rank gets the result."""
        pieces = cut(batch, self.microbatches)
        inputs: dict[int, list[Tensor]] = {0: [piece["tokens"] for piece in pieces]}
        sends: list[Any] = []
        results: list[Tensor] = []
        rows, length = pieces[0]["tokens"].shape
        for stage, view in zip(self.my_stages, self._views, strict=True):
            for number, piece in enumerate(pieces):
                if stage in inputs:
                    given = inputs[stage][number]
                else:
                    given = torch.empty(
                        rows, length // self.sizes.tp, self.width, dtype=self.dtype, device=self.root_device
                    )
                    torch.distributed.recv(given, group=self.group, group_src=self.owner(stage - 1))
                hidden = view(given, document_ids_BT=piece["document_ids"])
                if stage == self.stages - 1:
                    with self.precision_plugin.forward_context():
                        results.append(head(hidden, piece))
                elif self.owner(stage + 1) == self.owner(stage):
                    inputs.setdefault(stage + 1, []).append(hidden)
                else:
                    hidden = hidden.contiguous()
                    sends.append(torch.distributed.isend(hidden, group=self.group, group_dst=self.owner(stage + 1)))
        for work in sends:
            work.wait()
        return self._share_result(results)

    def _share_result(self, results: list[Tensor]) -> Tensor:
        """The sum of scalars or the rows of the last stage's results, on all ranks."""
        source = self.owner(self.stages - 1)
        result = None
        if results:
            result = torch.stack(results).sum() if results[0].ndim == 0 else torch.cat(results)
        meta = [None if result is None else (result.shape, result.dtype)]
        torch.distributed.broadcast_object_list(meta, group=self.group, group_src=source, device=self.root_device)
        assert meta[0] is not None
        shape, dtype = meta[0]
        shared = torch.empty(shape, dtype=dtype, device=self.root_device) if result is None else result.contiguous()
        torch.distributed.broadcast(shared, group=self.group, group_src=source)
        return shared

    # Parameters

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The last stage's copy of a tied matrix goes by the name of the first's."""
        for name, parameter in super().named_parameters():
            yield self.alias.get(name, name), parameter

    def gradient_norm(self, parameters: Iterable[nn.Parameter] | None = None) -> Tensor:
        """The global 2-norm of all gradients, or of some parameters'; a tied matrix counts once."""
        assert self.lightning_module is not None
        if parameters is None:
            parameters = [p for name, p in self.lightning_module.named_parameters() if name not in self.alias]
        return gradient_norm(parameters, self.sizes, self.root_device)


class _HandOver(torch.autograd.Function):
    """A loss whose gradients exist already: backward hands them to their parameters, times what comes in."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, loss: Tensor, made: list[tuple[nn.Parameter, Tensor]]) -> Tensor:
        ctx.made = made
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None]:
        (factor,) = grad_outputs
        gradients = [gradient for _, gradient in ctx.made]
        torch._foreach_mul_([g.to_local() if isinstance(g, DTensor) else g for g in gradients], factor)
        for parameter, gradient in ctx.made:
            parameter.grad = gradient
        ctx.made = None
        return None, None, None


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """A batch in equal pieces by rows; what has no rows (names, counts) goes to each whole."""
    rows = batch["tokens"].shape[0] // pieces
    return [
        {
            key: value[i * rows : (i + 1) * rows] if isinstance(value, Tensor) and value.ndim else value
            for key, value in batch.items()
        }
        for i in range(pieces)
    ]
