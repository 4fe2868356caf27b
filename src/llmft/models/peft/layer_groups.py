"""Parameters of a model from the top down, block by block, in the order of gradual unfreezing."""

from typing import Any

from torch.nn import Embedding, ModuleList, Parameter


def upper(model: Any, blocks: int | str) -> list[Parameter]:
    """Parameters of the top ``blocks`` blocks and of the layers above them; ``all`` adds the embeddings."""
    groups = from_the_top(model)
    return [p for group in (groups if blocks == "all" else groups[:-1][: int(blocks) + 1]) for p in group]


def from_the_top(model: Any) -> list[list[Parameter]]:
    """Groups of parameters: the layers above the blocks (norms, an untied head), each block, and the embeddings.

    The block nearest to the output is first: a seq2seq model has the blocks of its decoder before those of its encoder. A
    tied head belongs to the embeddings, and so to the last group.
    """
    stacks = _stacks(model)
    blocks = [list(block.parameters()) for stack in stacks for block in reversed(stack)]
    inside = {id(p) for block in blocks for p in block}
    parts = {id(part) for stack in stacks for part in stack.modules()}
    embedding = {
        id(p)
        for part in model.modules()
        if isinstance(part, Embedding) and id(part) not in parts
        for p in part.parameters()
    }
    fixed = {id(p) for p in fixed_positions(model)}
    rest = [p for p in model.parameters() if id(p) not in inside | fixed]
    return [
        [p for p in rest if id(p) not in embedding],
        *blocks,
        [p for p in rest if id(p) in embedding],
    ]


def fixed_positions(model: Any) -> list[Parameter]:
    """Sinusoidal position embeddings (Pegasus, Marian), which get no gradient: transformers computes them under ``no_grad``.

    Their class says so; that they are frozen is lost in ``from_pretrained``.
    """
    return [p for part in model.modules() if "Sinusoidal" in type(part).__name__ for p in part.parameters()]


def _stacks(model: Any) -> list[ModuleList]:
    """The lists of blocks, the one nearest to the output first; lists inside a block are not counted."""
    lists = [part for part in model.modules() if isinstance(part, ModuleList)]
    inner = {id(part) for outer in lists for part in outer.modules() if part is not outer}
    return [stack for stack in lists if id(stack) not in inner][::-1]
