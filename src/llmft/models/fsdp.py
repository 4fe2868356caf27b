"""FSDP2: shard the parameters of a model over all processes, layer by layer."""

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy


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


def mixed_precision(precision: str) -> MixedPrecisionPolicy:
    """The dtypes of gathered weights and of the reduction of gradients, for ``trainer.precision``.

    Under bf16-mixed weights are gathered in bfloat16, half the traffic and memory, so that the residual stream is bfloat16 too;
    shards, reduction and optimizer stay float32. 16-mixed gathers float32, because weights in float16 would overflow in
    operations that autocast computes in float32.
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

    Args:
        model: A transformers or peft model.
        mesh: The device mesh of the processes.
        precision: ``trainer.precision``.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(inner, FSDPModule):
        return
    policy = mixed_precision(precision)
    for module in sharded_layers(inner):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(inner, mesh=mesh, mp_policy=policy)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all processes if it is sharded (then all must call this)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore
