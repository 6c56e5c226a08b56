"""TensorParallelStrategy, the default for one process, DDP, FSDP2 (FSDP), HSDP and tensor parallelism (TP).

It spreads any LightningModule whose models follow the name contract (`tok_embeddings`, `layers.<i>`, `norm`, `output`)
and that can `materialize(part, device)` a part of itself. The order is fixed and every step is optional: cut (tensor
parallelism), checkpoint activations, compile, then allocate and shard block by block, so that no process ever holds
more than its shards and one block. Built on Lightning's ModelParallelStrategy for the launcher, the process group and
the precision plugins; its meshes and checkpoints are replaced.
"""

import atexit
import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from common.contracts import DecoderModule, ParallelizableModel, Preflight, WindowedData
from common.errors import InputError
from models.decoder import Decoder
from models.weights.sharded_folder import (
    load_tensors,
    load_trainer_state,
    remove,
    stored_tensors,
    verify_checkpoint,
)
from strategies.parallel.activation_checkpointing import ActivationCheckpointing, checkpoint_activations, compile_block
from strategies.parallel.float8 import refuse_without_units, use_float8_products
from strategies.parallel.gradient_norm import gradient_norm
from strategies.parallel.launcher import Launcher
from strategies.parallel.mesh import MeshSizes, check_divisible, make_mesh, resolve_sizes
from strategies.parallel.saver import CheckpointSaver
from strategies.parallel.tensor_parallel_plan import apply_tensor_parallel
from strategies.parallel.unshard import unsharded

CONTRACT = ("tok_embeddings", "layers", "norm", "output")
"""Names of the sub-modules by which a strategy knows a model."""


def leave_process_group() -> None:
    """Leave the process group, if still in one: nccl warns about those left open."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class TensorParallelStrategy(ModelParallelStrategy):
    """Default strategy: one process, DDP, FSDP2 (FSDP), HSDP, tensor parallelism (TP), and their products.

    The model is spread over the mesh (dp_replicate, dp_shard, tp). Which of them it is follows from three sizes: shards
    of 1 and several replicas are DDP, several shards are FSDP2, both are HSDP.

    Args:
        tensor_parallel_size: processes that share each matrix product, best within one machine.
        data_parallel_shard_size: processes that share parameters, gradients and optimizer state (FSDP2); "auto" takes
            all that the other axes leave.
        data_parallel_replicate_size: copies of that; with a shard size of 1 this is DDP, with a larger one HSDP.
        context_parallel_size: reserved, must be 1.
        activation_checkpointing: what the backward pass computes again: none, selective (all but products), full.
        compile_backend: backend of `torch.compile` for each block, "inductor" for speed; null runs eagerly.
        float8: matrix products of the blocks in 8-bit floating point, see `strategies.parallel.float8`.
        asynchronous_checkpoints: write checkpoints while training continues, at the price of a copy in memory.
        process_group_backend: null takes nccl on GPUs and gloo on CPUs.
        timeout_seconds: how long a collective may wait for another rank.

    Raises:
        InputError: for a layout that cannot work, before a process is started.
    """

    def __init__(
        self,
        tensor_parallel_size: int = 1,
        data_parallel_shard_size: int | Literal["auto"] = "auto",
        data_parallel_replicate_size: int = 1,
        context_parallel_size: int = 1,
        activation_checkpointing: ActivationCheckpointing = "none",
        compile_backend: str | None = None,
        float8: bool = False,
        asynchronous_checkpoints: bool = False,
        process_group_backend: str | None = None,
        timeout_seconds: int = 1800,
    ) -> None:
        super().__init__(1, 1, True, process_group_backend, timedelta(seconds=timeout_seconds))
        self.requested = {
            "pp": 1,
            "dp_replicate": data_parallel_replicate_size,
            "dp_shard": data_parallel_shard_size,
            "cp": context_parallel_size,
            "tp": tensor_parallel_size,
        }
        self.activation_checkpointing, self.compile_backend = activation_checkpointing, compile_backend
        self.float8 = float8
        self.saver = CheckpointSaver(asynchronous_checkpoints)
        self.sizes = MeshSizes()

    # Processes and mesh

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes, self.preflight)

    def preflight(self, trainer: Any) -> None:
        """Refuse what cannot work, from the configuration alone."""
        configured = self.num_nodes * self.num_processes
        environment = self.cluster_environment
        if environment is not None and environment.creates_processes_externally:
            started = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or configured)
            if started != configured:
                raise InputError(
                    f"trainer.devices x trainer.num_nodes = {configured}, but {started} processes were started: make "
                    "them equal"
                )
        self.sizes = resolve_sizes(configured, **cast(dict[str, Any], self.requested))
        if self.compile_backend is not None and self.sizes.tp > 1:
            raise InputError(
                f"compile_backend={self.compile_backend} with tensor_parallel_size={self.sizes.tp}: the gradients of "
                "compiled blocks come back as plain tensors where DTensors are needed (torch 2.13), set one of them to "
                "its default"
            )
        if self.float8 and self.sizes.tp > 1:
            raise InputError(
                f"float8=true with tensor_parallel_size={self.sizes.tp}: a scale would be that of a slice, and layouts "
                "would differ; set one of them to its default"
            )
        module, data = trainer.lightning_module, trainer.datamodule
        if isinstance(module, Preflight):
            module.preflight(trainer)
        if isinstance(module, DecoderModule) and module.config is not None and self.sizes.tp > 1:
            length = data.sequence_length if isinstance(data, WindowedData) else None
            check_divisible(module.config, length, self.sizes)

    def setup_environment(self) -> None:
        """Join the process group and make the mesh."""
        assert self.lightning_module is not None
        self.preflight(self.lightning_module.trainer)
        if self.sizes.world == 1 and not torch.distributed.is_initialized():
            # A single process needs no rendezvous, and so no port that another run could have taken.
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(
                self._get_process_group_backend(), store=store, rank=0, world_size=1, timeout=self._timeout
            )
            atexit.register(leave_process_group)
        self._setup_distributed()
        self._device_mesh = make_mesh(self.root_device.type, self.sizes)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Share of the samples of this process: peers along tp and pp see the same."""
        rank = self.sizes.data_parallel_rank(self.global_rank)
        return {"num_replicas": self.sizes.data_parallel, "rank": rank}

    @property
    def is_model_parallel_leader(self) -> bool:
        """True on the first of the processes that see the same samples."""
        mesh = self.device_mesh
        return all(mesh.get_local_rank(axis) == 0 for axis in ("pp", "cp", "tp"))

    @property
    def holds_whole_model(self) -> bool:
        """True where one process can run the model by itself."""
        return self.sizes.pp * self.sizes.dp_shard * self.sizes.tp == 1

    # Model

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Models are built on the meta device; `setup` allocates them, cut and sharded."""
        with torch.device("meta"), self.precision_plugin.tensor_init_context():
            yield

    def setup(self, trainer: Any) -> None:
        """Spread the models, then build the optimizers over what this process holds."""
        assert self.model is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        for model in self.parallelizable_models():
            if any(parameter.is_meta for parameter in model.parameters()):
                self.parallelize(model)
        module = cast(Any, self.lightning_module)
        module.gradient_norm = self.gradient_norm
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def parallelizable_models(self) -> list[nn.Module]:
        """The models within the LightningModule that follow the name contract."""
        assert self.lightning_module is not None
        found = [module for module in self.lightning_module.modules() if isinstance(module, ParallelizableModel)]
        if not found:
            raise InputError(
                f"{type(self.lightning_module).__name__} holds no model with the sub-modules {', '.join(CONTRACT)}: "
                "give it one, or take another trainer.strategy"
            )
        return found

    def parallelize(self, model: Any) -> None:
        """Cut, checkpoint activations, compile, then allocate and shard block by block."""
        # Hidden states gathered over tp are a view; nothing writes into them.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        if self.sizes.tp > 1:
            apply_tensor_parallel(model, self.device_mesh["tp"])
        if self.float8:
            refuse_without_units(self.root_device)
        for block in model.layers.values():
            if self.float8:
                use_float8_products(block)
            checkpoint_activations(block, self.activation_checkpointing)
            if self.compile_backend is not None:
                compile_block(block, self.compile_backend)
            # A pipeline runs each block once a micro-batch: gathering its weights each time would cost too much.
            self.allocate_and_shard(block, reshard_after_forward=self.sizes.pp == 1)
        for root in self.roots(model):
            # The loss reads the output matrix after the root's forward.
            self.allocate_and_shard(root, reshard_after_forward=False)

    def roots(self, model: nn.Module) -> list[nn.Module]:
        """The modules whose forward is called, which gather what is in no block."""
        return [model]

    def allocate_and_shard(self, part: nn.Module, reshard_after_forward: bool) -> None:
        """Draw the weights of a part and keep this process's shards of them."""
        assert self.lightning_module is not None
        cast(Any, self.lightning_module).materialize(part, self.root_device)
        if self.sizes.data_parallel > 1:
            axes = ("dp_replicate", "dp_shard") if self.sizes.dp_replicate > 1 else ("dp_shard",)
            fully_shard(part, mesh=self.device_mesh[axes], reshard_after_forward=reshard_after_forward)

    def sharded_roots(self) -> Iterator[FSDPModule]:
        """Every root that FSDP2 shards."""
        for model in self.parallelizable_models():
            yield from (root for root in self.roots(model) if isinstance(root, FSDPModule))

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Keep gradients local while micro-batches accumulate; Lightning's own knows DDP only."""
        for root in self.sharded_roots():
            root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for root in self.sharded_roots():
                root.set_requires_gradient_sync(True)

    def on_validation_end(self) -> None:
        """Evaluation, and sampling after it, leave gathered weights behind, which training would continue with."""
        self.release_gathered_weights()

    def on_test_end(self) -> None:
        """See `on_validation_end`."""
        self.release_gathered_weights()

    def on_predict_end(self) -> None:
        """See `on_validation_end`."""
        self.release_gathered_weights()

    def release_gathered_weights(self) -> None:
        """Keep nothing but this process's shards."""
        for root in self.sharded_roots():
            for part in cast(nn.Module, root).modules():
                if isinstance(part, FSDPModule):
                    part.reshard()

    def unsharded(self, model: Decoder) -> AbstractContextManager[Decoder]:
        """A model with whole weights, for running it without the other ranks, see `strategies.parallel.unshard`."""
        return unsharded(model)

    def gradient_norm(self, parameters: Iterable[nn.Parameter] | None = None) -> Tensor:
        """The global 2-norm of all gradients, or of some parameters', the same on every rank."""
        assert self.lightning_module is not None
        chosen = self.owned_parameters().values() if parameters is None else parameters
        return gradient_norm(chosen, self.sizes, self.root_device)

    # Checkpoints

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter this process holds under the name it has in one process; copies share a name."""
        assert self.lightning_module is not None
        yield from self.lightning_module.named_parameters()

    def owned_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by name, one per name."""
        owned: dict[str, nn.Parameter] = {}
        for name, parameter in self.named_parameters():
            owned.setdefault(name, parameter)
        return owned

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Parameters and buffers of this process: whole tensors, or DTensors that know which part they are."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict(keep_vars=True)
        buffers = {name: value for name, value in state.items() if not isinstance(value, nn.Parameter)}
        return {**buffers, **self.owned_parameters()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State tensors by parameter name; settings such as learning rates are the configuration's to give."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        return {
            f"{name}.{key}": value
            for name, parameter in self.owned_parameters().items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Every process writes its part into one folder."""
        tensors = {f"model.{name}": value for name, value in checkpoint.pop("state_dict").items()}
        for index, state in enumerate(checkpoint.pop("optimizer_states", [])):
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        folder = Path(self.broadcast(str(filepath)))
        self.saver.save(folder, {k: v.detach() for k, v in tensors.items()}, checkpoint)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill the model and the optimizers in place from a checkpoint of any layout."""
        folder = Path(self.broadcast(str(checkpoint_path)))
        if folder.is_file():
            raise InputError(
                f"checkpoint {folder} is a single file, written by one of Lightning's own strategies: "
                "continue with that strategy, or give this one a trainer.default_root_dir of its own"
            )
        verify_checkpoint(folder)
        rest = load_trainer_state(folder)
        assert self.lightning_module is not None
        # Another model is refused by its configuration before a tensor does not fit.
        self.lightning_module.on_load_checkpoint(rest)
        stored = stored_tensors(folder)
        targets: dict[str, Tensor] = {f"model.{name}": t for name, t in self.lightning_module_state_dict().items()}
        for index, optimizer in enumerate(self.optimizers):
            inner = getattr(optimizer, "_optimizer", optimizer)
            for name, parameter in self.owned_parameters().items():
                prefix = f"optimizer.{index}.{name}."
                for key in [key for key in stored if key.startswith(prefix)]:
                    value = (
                        torch.zeros_like(parameter)
                        if stored[key].size == parameter.shape
                        else torch.zeros(stored[key].size, dtype=stored[key].properties.dtype, device=parameter.device)
                    )
                    inner.state[parameter][key.removeprefix(prefix)] = value
                    targets[key] = value
        load_tensors(folder, {name: tensor.detach() for name, tensor in targets.items()})
        self.sync_tied_parameters()
        return rest | {"state_dict": {}}

    def sync_tied_parameters(self) -> None:
        """Copy what was loaded under a name to the other parameters of that name."""
        owned = self.owned_parameters()
        for name, parameter in self.named_parameters():
            if parameter is not owned[name]:
                with torch.no_grad():
                    parameter.copy_(owned[name])
                for optimizer in self.optimizers:
                    state = getattr(optimizer, "_optimizer", optimizer).state
                    if owned[name] in state:
                        state[parameter] = {key: value.clone() for key, value in state[owned[name]].items()}

    def remove_checkpoint(self, filepath: Any) -> None:
        """Delete a checkpoint folder, on the first process."""
        if self.is_global_zero:
            remove(Path(filepath))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Done in `load_checkpoint`."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Done in `load_checkpoint`."""

    def teardown(self) -> None:
        """Finish the checkpoint in progress, then leave the process group."""
        self.saver.wait()
        super().teardown()
