"""Recognize out-of-memory errors."""

import errno

import torch

from llmft.utils.errors import chain

# Messages of torch and its libraries that come as a plain RuntimeError.
MESSAGES = ("not enough memory", "out of memory", "can't allocate memory", "alloc_failed", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error or one of its causes is an out-of-memory error."""
    return any(
        isinstance(e, MemoryError | torch.OutOfMemoryError)
        or (isinstance(e, RuntimeError) and any(words in str(e).lower() for words in MESSAGES))
        or (isinstance(e, OSError) and e.errno == errno.ENOMEM)
        for e in chain(error)
    )
