"""The last layer's MLP and output projection at positions with a loss only: nothing reads what they return for the others.

Keys and values of all positions are needed, the rest of the last layer works token by token, and the LM head is applied at
those positions only. The hidden states of the other positions miss what was left out, and are dropped.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmft.models.loss import Positions
from llmft.utils.modules import dropouts

# Names of the MLP of a block, and of the output projection in its attention.
MLP = ("mlp",)
OUTPUT = ("o_proj", "c_proj", "out_proj", "dense")
# The share of positions with a loss up to which leaving the others out is faster (docs/performance.md).
FEW = 0.8


class Part(NamedTuple):
    """A module that works token by token.

    Attributes:
        module: It maps [B, T, D] to [B, T, E].
        drops: Whether something in it drops out in train mode; its noise would be another one for fewer positions.
    """

    module: nn.Module
    drops: bool


class LastLayer:
    """What the last layer of a causal model need not compute for positions without a loss.

    Args:
        model: A transformers or peft model.

    Attributes:
        parts: Its modules that may leave positions out; none for a model of another structure.
    """

    def __init__(self, model: Any) -> None:
        block = None if model.config.is_encoder_decoder else _last_block(model)
        found = [] if block is None else [module for module in _token_wise(block) if _is_plain(module)]
        self.parts = [Part(module, bool(dropouts(module))) for module in found]
        self._recomputing = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]

    def modules(self, chosen: Positions) -> list[nn.Module]:
        """The modules to run at the chosen positions only; none if that saves little or changes the computation.

        Args:
            chosen: Positions whose logits are needed.
        """
        few = 0 < len(chosen.index) <= FEW * chosen.shape[0] * chosen.shape[1]
        # the recomputation in the backward pass is without these hooks
        if not few or (torch.is_grad_enabled() and any(module.gradient_checkpointing for module in self._recomputing)):
            return []
        return [part.module for part in self.parts if not (part.drops and part.module.training)]


def _last_block(model: Any) -> nn.Module | None:
    """The last of the blocks; None if it is not clear which these are."""
    number = getattr(model.config, "num_hidden_layers", None)
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == number]
    return stacks[0][-1] if len(stacks) == 1 else None


def _token_wise(block: nn.Module) -> list[nn.Module]:
    children = dict(block.named_children())
    attention = [child for name, child in children.items() if "attn" in name or "attention" in name]
    inner = [children[name] for name in MLP if name in children]
    return inner + [getattr(child, name) for child in attention for name in OUTPUT if hasattr(child, name)]


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is made of matrices and activations: no experts, and not sharded, where all ranks have to agree."""
    experts = any(isinstance(part, nn.ModuleList) for part in module.modules())
    return not experts and all(p.dim() <= 2 and not hasattr(p, "device_mesh") for p in module.parameters())


@contextmanager
def at_positions(modules: Sequence[nn.Module], chosen: Positions) -> Iterator[None]:
    """Run modules at the chosen positions only; at all others their output is zero.

    Args:
        modules: Each maps one tensor [B, T, D] to one [B, T, E].
        chosen: Positions whose output is needed.
    """

    def select(_: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (hidden,) = inputs
        if (*hidden.shape[:-1],) != (*chosen.shape,):
            raise ValueError("the last layer does not work on [batch, tokens]")
        return (chosen.select(hidden)[None],)

    def spread(_: Any, __: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(chosen.shape[0] * chosen.shape[1], output.shape[-1])
        return whole.index_copy(0, chosen.index.to(output.device), output[0]).unflatten(0, (*chosen.shape,))

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(select).remove)
            # before the hooks of others, which expect every position
            hooks.callback(module.register_forward_hook(spread, prepend=True).remove)
        yield
