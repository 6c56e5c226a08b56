"""Input of a plan (`TrainingSetup`): shape of the model, mesh, batch size, precision and checkpointing of a run.

One flat, immutable record that a search can vary with `dataclasses.replace`, at the price of naming again what the
Trainer, the strategy and the data are called in YAML.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.config import DecoderConfig
from strategies.parallel.activation_checkpointing import ActivationCheckpointing
from strategies.parallel.mesh import ARGUMENTS, MeshSizes
from strategies.parallel.schedules import ScheduleName


@dataclass(frozen=True)
class TrainingSetup:
    """A training run, as far as its cost is concerned.

    Attributes:
        config: shape of the decoder.
        sizes: processes along each axis of the mesh.
        sequence_length: tokens in a window.
        rows: windows in a batch of one rank; after batch-size warm-up, where there is one.
        accumulate: batches accumulated before a step.
        microbatches_per_batch: micro-batches that a pipeline cuts each batch into; 1 without one.
        steps: optimizer steps.
        mixed: matrix products in bfloat16 under autocast; false computes all in float32.
        optimizer: AdamW keeps two moments of every parameter, Muon one of the blocks' matrices.
        checkpointing: what the backward pass computes again.
        schedule: of the pipeline.
        stages_per_rank: stages of each process.
        compiled: blocks go through `torch.compile`.
        float8: products of the blocks in 8 bits.
        device: `cuda` or `cpu`: attention and norms keep other tensors.
        warmup_batches: first batches (`batch_size_warmup`), ascending: windows of one rank, and the optimizer steps
            with that size.
    """

    config: DecoderConfig
    sizes: MeshSizes
    sequence_length: int
    rows: int
    accumulate: int = 1
    microbatches_per_batch: int = 1
    steps: int = 1
    mixed: bool = True
    optimizer: Literal["AdamW", "Muon"] = "AdamW"
    checkpointing: ActivationCheckpointing = "none"
    schedule: ScheduleName = "1f1b"
    stages_per_rank: int = 1
    compiled: bool = False
    float8: bool = False
    device: Literal["cuda", "cpu"] = "cuda"
    warmup_batches: tuple[tuple[int, int], ...] = ()

    @property
    def width_bytes(self) -> int:
        """Bytes of a number in matrix products."""
        return 2 if self.mixed else 4

    @property
    def stages(self) -> int:
        """Stages of the whole pipeline."""
        return self.sizes.pp * self.stages_per_rank

    @property
    def microbatches(self) -> int:
        """Micro-batches per rank and optimizer step: a pipeline folds accumulated batches into one schedule."""
        return self.microbatches_per_batch * self.accumulate

    @property
    def microbatch_tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.rows // self.microbatches_per_batch * self.sequence_length

    @property
    def step_tokens(self) -> int:
        """Tokens that all ranks learn from in a step of full size."""
        return self.rows * self.sequence_length * self.accumulate * self.sizes.data_parallel

    @property
    def tokens(self) -> int:
        """Tokens of the whole run, batch-size warm-up included."""
        return sum(phase.step_tokens * phase.steps for phase in self.phases())

    @property
    def batch_sizes(self) -> list[int]:
        """Every size of a rank's batch, ascending."""
        return [*(size for size, _ in self.warmup_batches), self.rows]

    def phases(self) -> Iterator["TrainingSetup"]:
        """Phases of the run with one batch size each, in order, as many as its steps reach."""
        left = self.steps
        for size, steps in (*self.warmup_batches, (self.rows, left)):
            if (taken := min(steps, left)) > 0:
                yield replace(self, rows=size, steps=taken, warmup_batches=())
            left -= taken

    def overlay(self, gpus_per_node: int) -> dict[str, Any]:
        """Configuration overlay of `fit` that sets this layout.

        Every machine runs equally many processes, at most one per GPU, and ranks that share matrix products run on one.

        Args:
            gpus_per_node: GPUs of a machine.
        """
        world = self.sizes.world
        arguments: dict[str, Any] = {
            ARGUMENTS["tp"]: self.sizes.tp,
            ARGUMENTS["dp_shard"]: self.sizes.dp_shard,
            ARGUMENTS["dp_replicate"]: self.sizes.dp_replicate,
            "activation_checkpointing": self.checkpointing,
            "compile_backend": "inductor" if self.compiled else None,
            "float8": self.float8,
        }
        if self.sizes.pp > 1:
            arguments |= {
                ARGUMENTS["pp"]: self.sizes.pp,
                "schedule": self.schedule,
                "microbatches": self.microbatches_per_batch,
                "stages_per_rank": self.stages_per_rank,
            }
        name = "PipelineParallelStrategy" if self.sizes.pp > 1 else "TensorParallelStrategy"
        together = self.sizes.tp if self.sizes.tp <= gpus_per_node else 1
        devices = max(n for n in range(together, gpus_per_node + 1, together) if world % n == 0)
        data: dict[str, Any] = {"batch_size": self.rows}
        if self.warmup_batches:
            # Sizes grow by equal amounts; from the last of them to the full one it may be less.
            first, second = self.batch_sizes[:2]
            steps = sum(steps for _, steps in self.warmup_batches)
            data["batch_size_warmup"] = {"initial": first, "increment": second - first, "steps": steps}
        return {
            "trainer": {
                "devices": devices,
                "num_nodes": world // devices,
                "accumulate_grad_batches": self.accumulate,
                "strategy": {"class_path": f"strategies.{name}", "init_args": arguments},
            },
            "data": {"init_args": data},
        }
