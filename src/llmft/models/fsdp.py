"""FSDP2: shard the parameters of a model over all processes, layer by layer; only the first process loads them."""

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from llmft.utils.rank import is_first


def strategy_of(trainer: Any) -> Any:
    """Lightning's strategy of a ``trainer`` config: its name, or FSDP2 over all processes for ``fsdp``."""
    if trainer.strategy != "fsdp":
        return trainer.strategy
    ranks = trainer.devices * trainer.num_nodes
    # a checkpoint is one file, as with every other strategy, so that a run can be resumed with any of them
    return ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)


def is_sharded(strategy: Any) -> bool:
    """Whether no process holds all parameters."""
    return isinstance(strategy, ModelParallelStrategy)


def is_fsdp(model: Any) -> bool:
    """Whether ``shard`` has sharded a transformers or peft model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(_inner(model), FSDPModule)


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def agreed(model: Any, found: bool | None) -> bool | None:
    """The result of a check, the same in all processes if the model is sharded: false in one is false, else undecided in one.

    Args:
        model: A transformers or peft model.
        found: The result of this process.
    """
    if not is_fsdp(model):
        return found
    results = (False, None, True)
    least = torch.tensor(results.index(found), device=model.device)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return results[int(least)]


def has_no_weights(cfg: Any) -> bool:
    """Whether this process of a training leaves its model on the meta device: it gets its shards from rank 0.

    Args:
        cfg: The training config.
    """
    return cfg.trainer.strategy == "fsdp" and not is_first()


def mixed_precision(precision: str) -> MixedPrecisionPolicy:
    """The dtypes of gathered weights and of the reduction of gradients, for ``trainer.precision``.

    Under bf16-mixed weights are gathered in bfloat16, half the traffic and memory, so that the residual stream is bfloat16 too;
    shards, reduction and optimizer stay float32.
    """
    if precision != "bf16-mixed":
        return MixedPrecisionPolicy()
    # inputs as they are: the float32 minimum of an attention mask would be -inf in bfloat16
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)


def sharded_layers(model: Any) -> list[nn.Module]:
    """The layers of a transformers or peft model that are gathered one at a time, in the order of the model."""
    return [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]


def shard(model: Any, mesh: Any, precision: str = "32-true") -> None:
    """Shard the parameters of each layer, and the remaining ones; a sharded model is left as it is.

    A process whose model is on the meta device gets its shards from rank 0, so that the complete float32 model is in the memory
    of one process only, and one layer at a time on each device.

    Args:
        model: A transformers or peft model; on the meta device in any process but the first.
        mesh: The device mesh of the processes.
        precision: ``trainer.precision``.
    """
    from torch.distributed.fsdp import fully_shard

    if is_fsdp(model):
        return
    inner = _inner(model)
    policy, source = mixed_precision(precision), _WeightsOfFirst(inner, mesh)
    for module in (*sharded_layers(inner), inner):
        source.send(module)
        fully_shard(module, mesh=mesh, mp_policy=policy)


class _WeightsOfFirst:
    """Gives each process the parameters and buffers of rank 0, if any process has some on the meta device.

    Args:
        model: Not sharded yet.
        mesh: The device mesh of the processes.
    """

    def __init__(self, model: nn.Module, mesh: Any) -> None:
        self.mesh, self.device = mesh, _device_of(mesh)
        absent = torch.tensor(any(p.is_meta for p in model.parameters()), dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(absent, group=mesh.get_group())
        self.needed = bool(absent)
        for layer in model.modules():
            if _is_in_4_bits(layer):
                self._send_state(layer)
        # tied weights have several places, and stay tied
        self.places: dict[int, list[tuple[dict[str, Any], str]]] = defaultdict(list)
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    self.places[id(tensor)].append((tensors, name))

    def send(self, module: nn.Module) -> None:
        """Broadcast what a module holds and is not sharded yet, one tensor at a time."""
        held = [*module.parameters(), *module.buffers()] if self.needed else []
        for tensor in held:
            if not isinstance(tensor, DTensor):
                self._broadcast(tensor)

    def _send_state(self, layer: Any) -> None:
        """Give a layer in 4 bits the scales of its weight, which are no parameters and so not sharded, on its device.

        A weight on the meta device becomes one of the packed size, whose numbers ``send`` gets.
        """
        if self.needed:
            from bitsandbytes.functional import QuantState

            absent = layer.weight.is_meta
            sent: list[Any] = (
                [None, None] if absent else [layer.weight.shape, layer.weight.quant_state.as_dict(packed=True)]
            )
            torch.distributed.broadcast_object_list(sent, group=self.mesh.get_group(), device=self.device, group_src=0)
            if absent:
                packed = torch.empty(sent[0], dtype=layer.quant_storage, device="meta")
                layer.weight = nn.Parameter(packed, requires_grad=False)
                layer.quant_state = QuantState.from_dict(sent[1], self.device)
        layer.quant_state.to(self.device)

    def _broadcast(self, tensor: Tensor) -> None:
        given = tensor.data.as_subclass(Tensor)  # bitsandbytes quantizes what is moved
        data = torch.empty_like(given, device=self.device) if given.is_meta else given.to(self.device)
        torch.distributed.broadcast(data, group=self.mesh.get_group(), group_src=0)
        if not tensor.is_meta:
            tensor.data = data
            return
        is_parameter = isinstance(tensor, nn.Parameter)
        made = nn.Parameter(data, requires_grad=tensor.requires_grad) if is_parameter else data
        for tensors, name in self.places[id(tensor)]:
            tensors[name] = made


def _is_in_4_bits(layer: Any) -> bool:
    """Whether a layer is a ``Linear4bit`` of bitsandbytes, which is not imported for the question."""
    return "quant_state" in vars(layer) and "quant_storage" in vars(layer)


def _device_of(mesh: Any) -> torch.device:
    """The device of this process in a mesh."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all processes if it is sharded (then all must call this)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore
