"""FSDP2: the weights of a model shared out among processes, layer by layer, and what differs then."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor


def strategy_of(trainer: Any) -> Any:
    """Lightning's strategy for a ``trainer`` config: a name of its own, or FSDP2 over all processes for ``fsdp``."""
    if trainer.strategy != "fsdp":
        return trainer.strategy
    ranks = trainer.devices * trainer.num_nodes
    # one file for a checkpoint, as every other strategy writes it, so that a run can go on anywhere
    return ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)


def is_sharded(strategy: Any) -> bool:
    """Whether no process holds the whole model."""
    return isinstance(strategy, ModelParallelStrategy)


def shard(model: Any, mesh: Any) -> None:
    """Share out the weights of each layer, and what is left of the model; does nothing the second time.

    Args:
        model: A transformers or peft model.
        mesh: The processes.
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
    """A tensor, put together from its shares if it has any; then all processes must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore
