"""Error message for a training that ran out of memory: what it needs, and the cheapest change."""

import logging

from llmft.config.schema import TrainConfig
from llmft.estimate.estimate import estimate, load_encoded
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.oom import is_out_of_memory

log = logging.getLogger(__name__)


def out_of_memory_error(cfg: TrainConfig, reason: str, where: int = 0, kept: str = "") -> UserError:
    """Build the error; call it after the training's tensors are freed.

    Args:
        cfg: The training config.
        reason: The message of the original error.
        where: The optimizer step in which it occurred; 0 if outside of a step.
        kept: What is kept of the training.
    """
    head = f"out of memory{f' in step {where}' if where else ''}: {reason}" + (f"\n{kept}" if kept else "")
    try:
        found = estimate(cfg, *load_encoded(cfg), too_much=True)
    except (MemoryError, RuntimeError, OSError, UserError) as error:  # mostly too little memory for the estimate, too
        if not (is_out_of_memory(error) or isinstance(error, OSError | UserError)):  # a bug, which needs its traceback
            log.warning("the estimate failed", exc_info=True)
        ways = (
            "halve data.batch_size and double trainer.accumulate_grad_batches, or set model.gradient_checkpointing=true"
        )
        return UserError(f"{head}\nits memory could not be estimated ({type(error).__name__}); {ways}")
    console = Console(width=60)
    with console.capture() as printed:
        console.print(found.table())
    return UserError("\n".join([head, printed.get().rstrip(), *found.summary_lines()]))
