"""Run llmft in this process and kill it, as a power cut would, at the N-th call of one function: ``killed.py WHERE N args...``"""

import os
import signal
import sys
from typing import Any


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    where, number, *arguments = sys.argv[1:]
    import torch

    from llmft import __main__, checkpoint_io
    from llmft.models.base import InstructionModule

    owner, name = {
        "batch": (InstructionModule, "training_step"),
        "validation": (InstructionModule, "validation_step"),
        "write": (torch, "save"),
        "rename": (checkpoint_io, "sync_folder"),
        "best": (checkpoint_io, "link"),
    }[where]
    real, calls = getattr(owner, name), 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(number):
            if where == "write":
                given[1].write(b"half a checkpoint")
                given[1].flush()
            die()
        return real(*given, **named)

    setattr(owner, name, call)
    if where == "best":  # under the name by which its caller knows it
        from llmft.callbacks import checkpoints

        checkpoints.link = call
    sys.exit(__main__.run(arguments))


main()
