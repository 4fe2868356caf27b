"""Out-of-memory errors: recognise them and give the reason."""

import errno

import torch

from llmft.utils.errors import chain

# What torch and its libraries say where they raise nothing more special than a RuntimeError.
SAID = ("not enough memory", "out of memory", "can't allocate memory", "alloc_failed", "bad_alloc")


def is_shortage(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that memory ran out."""
    return any(
        isinstance(e, MemoryError | torch.OutOfMemoryError)
        or (isinstance(e, RuntimeError) and any(words in str(e).lower() for words in SAID))
        or (isinstance(e, OSError) and e.errno == errno.ENOMEM)
        for e in chain(error)
    )
