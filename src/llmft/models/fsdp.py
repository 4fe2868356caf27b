"""FSDP2: shard the parameters of a model over all processes, layer by layer."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor


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


def shard(model: Any, mesh: Any) -> None:
    """Shard the parameters of each layer, and the remaining ones; a sharded model is left as it is.

    Args:
        model: A transformers or peft model.
        mesh: The device mesh of the processes.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(inner, FSDPModule):
        return
    for module in inner.modules():
        if type(module).__name__ in inner._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(inner, mesh=mesh)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all processes if it is sharded (then all must call this)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore
