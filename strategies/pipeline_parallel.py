"""PipelineParallelStrategy: pipeline parallelism (PP) by torch's schedules; FSDP2, HSDP and TP in a stage.

The Trainer's loop and the LightningModule's step stay as they are. The step's one call `forward(batch, head)` is taken
over here: a schedule runs forward and backward of all micro-batches at once, and the loss handed back is a node of
autograd whose backward gives each parameter the gradient that the schedule already made. So Lightning may zero
gradients between step and backward, scale the loss and call every hook, as for any model. Accumulated batches are
folded into one schedule: a bubble is paid once per step, not once per batch. Stages know the shapes they exchange
beforehand, because torch's way of finding out runs the model once more and throws gradients away.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import P2POp
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor import DTensor

from common.contracts import BatchedData, DecoderModule, WholeBatchLoss, WindowedData
from common.errors import InputError
from strategies.parallel.gradient_norm import gradient_norm, settle_gradients
from strategies.parallel.pipeline_stages import layer_costs, prune, split_layers, stage_view
from strategies.parallel.precomputed_gradients import loss_with_gradients
from strategies.parallel.schedules import ScheduleName, find_schedule
from strategies.tensor_parallel import TensorParallelStrategy

Batch = dict[str, Any]
HeadFunction = Callable[[Tensor, Batch], Tensor]
Watch = Callable[[str], AbstractContextManager[None]]
"""Context entered while a `schedule` runs and, within it, each `action`: so that waiting time has a reason."""


def _unwatched(part: str) -> AbstractContextManager[None]:
    return nullcontext()


class PipelineParallelStrategy(TensorParallelStrategy):
    """Pipeline-parallel strategy: stages of layers over `pp`, and within a stage all that TensorParallelStrategy does.

    Without a pipeline (one process, DDP, FSDP2, HSDP) the default is `strategies.TensorParallelStrategy`.

    Args:
        pipeline_parallel_size: processes in a row, each with its stages of the layers.
        schedule: gpipe (Huang et al. 2019), 1f1b (Narayanan et al. 2019, PipeDream-Flush), interleaved_1f1b
            (Narayanan et al. 2021), interleaved_zero_bubble and zbv (Qi et al. 2024, 2024b).
        microbatches: micro-batches that each batch of the data is cut into; accumulated batches add up.
        stages_per_rank: stages per rank; null takes the smallest number that the schedule runs, 1 or 2.
        further: arguments of `TensorParallelStrategy`.

    Raises:
        InputError: for a layout that cannot work, before a process is started.
    """

    def __init__(
        self,
        pipeline_parallel_size: int,
        schedule: ScheduleName = "1f1b",
        microbatches: int = 4,
        stages_per_rank: int | None = None,
        **further: Any,
    ) -> None:
        super().__init__(**further)
        self.requested["pp"] = pipeline_parallel_size
        self.schedule, self.microbatches = find_schedule(schedule), microbatches
        self.stages_per_rank = self.schedule.stages_per_rank(stages_per_rank)
        self._waiting: list[Batch] = []
        self._schedules: dict[Any, Any] = {}
        self._views: list[nn.Module] = []
        self._microbatches: list[Batch] = []
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
        size = self.requested["pp"]
        if isinstance(size, int) and size < 2:
            raise InputError(
                f"pipeline_parallel_size={size}: a pipeline needs at least 2 processes in a row, without one take "
                "strategies.TensorParallelStrategy"
            )
        module, data = trainer.lightning_module, trainer.datamodule
        config = module.config if isinstance(module, DecoderModule) else None
        if isinstance(module, WholeBatchLoss) and module.whole_rows:
            raise InputError(
                f"{type(module).__name__} in a pipeline: its loss needs all pairs of a batch in one "
                "row, which a pipeline cannot cut; take strategies.TensorParallelStrategy"
            )
        if config is not None and config.experts is not None:
            raise InputError(
                "decoder.experts in a pipeline: the loss that balances them is known to one stage only; take "
                "TensorParallelStrategy with data_parallel_shard_size"
            )
        if config is not None and config.lora is not None:
            raise InputError(
                "model.init_args.lora in a pipeline: stages wait for gradients that frozen matrices do not send; take "
                "strategies.TensorParallelStrategy"
            )
        super().preflight(trainer)
        self.schedule.check_stages_per_rank(self.stages_per_rank)
        self.schedule.check_backward(self.compile_backend, self.float8, self.activation_checkpointing)
        batches = data.batch_sizes() if isinstance(data, BatchedData) else []
        for batch in batches:
            if batch % self.microbatches:
                common = math.gcd(*batches)
                fits = [size for size in range(1, common + 1) if common % size == 0]
                raise InputError(
                    f"microbatches={self.microbatches} does not divide batch_size={batch}: choose one of {fits}"
                )
        self.schedule.check_microbatches(self.microbatches, trainer.accumulate_grad_batches, self.sizes.pp, self.stages)
        if config is not None and config.layers < self.stages:
            raise InputError(f"layers={config.layers}: fewer than the {self.stages} pipeline stages, use fewer stages")

    def owner(self, stage: int) -> int:
        """Rank along `pp` that holds a stage."""
        return self.schedule.owner(stage, self.sizes.pp)

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
        data = module.trainer.datamodule
        sequence_length = data.sequence_length if isinstance(data, WindowedData) else 1
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
        """`LightningModule.forward(batch, head)` of a pipeline.

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
        self._microbatches = [part for batch in batches for part in split_microbatches(batch, self.microbatches)]
        self._head = head
        parameters = [parameter for _, parameter in self.named_parameters()]
        for parameter in parameters:
            parameter.grad = None
        tokens = torch.cat([batch["tokens"] for batch in batches])
        documents = torch.cat([batch["document_ids"] for batch in batches])
        schedule = self._schedule(len(self._microbatches), tokens.shape[0] // len(self._microbatches), tokens.shape[1])
        losses: list[Tensor] = []
        with torch.autocast(self.root_device.type, enabled=False), self.watch("schedule"):
            schedule.step(
                *([tokens] if 0 in self.my_stages else []),
                target=torch.arange(len(self._microbatches)),
                losses=losses,
                return_outputs=False,
                document_ids_BT=documents,
            )
        loss = torch.zeros((), device=self.root_device)
        if losses:
            loss += torch.stack([part.detach() for part in losses]).sum()
        # Zeros elsewhere: the last stage is not on the last rank in every schedule.
        torch.distributed.all_reduce(loss, group=self.group)
        settle_gradients(parameters)
        if self.tied:
            self._add_tied_gradients()
        made = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad = None
        return loss_with_gradients(loss, made)

    def _microbatch_loss(self, hidden: Tensor, index: Tensor) -> Tensor:
        assert self._head is not None
        with self.precision_plugin.forward_context():
            return self._head(hidden, self._microbatches[int(index)])

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
            chosen = stages[0] if self.schedule.has_one_stage else stages
            # Losses are shares of the whole batch already: nothing is divided by the number of micro-batches.
            self._schedules[key] = self.schedule.torch_class(
                chosen, count, loss_fn=self._microbatch_loss, scale_grads=False
            )
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
        """Micro-batches pass through the stages one after the other, and every rank gets the result."""
        microbatches = split_microbatches(batch, self.microbatches)
        inputs: dict[int, list[Tensor]] = {0: [part["tokens"] for part in microbatches]}
        sends: list[Any] = []
        results: list[Tensor] = []
        rows, length = microbatches[0]["tokens"].shape
        for stage, view in zip(self.my_stages, self._views, strict=True):
            for number, part in enumerate(microbatches):
                if stage in inputs:
                    given = inputs[stage][number]
                else:
                    given = torch.empty(
                        rows, length // self.sizes.tp, self.width, dtype=self.dtype, device=self.root_device
                    )
                    torch.distributed.recv(given, group=self.group, group_src=self.owner(stage - 1))
                hidden = view(given, document_ids_BT=part["document_ids"])
                if stage == self.stages - 1:
                    with self.precision_plugin.forward_context():
                        results.append(head(hidden, part))
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


def split_microbatches(batch: Batch, count: int) -> list[Batch]:
    """Micro-batches of equal numbers of rows; what has no rows (names, counts) goes whole to each."""
    rows = batch["tokens"].shape[0] // count
    return [
        {
            key: value[i * rows : (i + 1) * rows] if isinstance(value, Tensor) and value.ndim else value
            for key, value in batch.items()
        }
        for i in range(count)
    ]
