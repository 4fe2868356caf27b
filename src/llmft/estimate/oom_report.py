"""Out of memory -> one message: what the training would need, and the cheapest change."""

from typing import Any

from llmft.estimate.estimate import estimate, load_encoded
from llmft.utils.console import Console
from llmft.utils.errors import UserError


def out_of_memory_error(cfg: Any, reason: str, where: int = 0, kept: str = "") -> UserError:
    """The message; call it where the training's tensors are gone already.

    Args:
        cfg: Of the training.
        reason: What was said when memory ran out.
        where: The optimizer step in which it did; 0 where it was in none.
        kept: What is left of the training.
    """
    head = f"out of memory{f' in step {where}' if where else ''}: {reason}" + (f"\n{kept}" if kept else "")
    try:
        found = estimate(cfg, *load_encoded(cfg), too_much=True)
    except Exception as error:  # there may be too little memory for this, too
        ways = "halve data.batch_size and double trainer.accumulate_grad_batches, or take model.gradient_checkpointing=true"
        return UserError(f"{head}\nwhat it would need could not be estimated ({type(error).__name__}); {ways}")
    console = Console(width=60)
    with console.capture() as printed:
        console.print(found.table())
    return UserError("\n".join([head, printed.get().rstrip(), *found.summary_lines()]))
