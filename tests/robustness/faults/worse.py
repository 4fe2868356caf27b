"""Faults to be put into a process before it runs llmft; as a script: ``worse.py FAULT key=value ...`` (Lightning starts it again for each process)."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def in_batch(number: int, what: Callable[[], Any]) -> None:
    """Do something at the start of a training batch."""
    from llmft.models.module import InstructionModule

    real, calls = InstructionModule.training_step, 0

    def training_step(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            what()
        return real(*given)

    InstructionModule.training_step = training_step  # pyright: ignore[reportAttributeAccessIssue]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_batch_five() -> None:
    in_batch(5, die)


def lose_an_encoder() -> None:
    """Two processes encode 24 rows; the one that gets the second half is killed."""
    from llmft.data.preprocessing import encode, read_examples

    read_examples.BATCH_ROWS = 12
    encode.SINGLE_PROCESS_ROWS = 10
    os.sched_getaffinity = lambda _: {0, 1}  # pyright: ignore[reportAttributeAccessIssue]
    real = encode.Preprocessor.encode_batch

    def part(self: Any, number: int) -> Any:
        if number == 1:
            die()
        return real(self, number)

    encode.Preprocessor.encode_batch = part  # pyright: ignore[reportAttributeAccessIssue]


def turn_the_clock_back() -> None:
    """The time of day is an hour early, and from the second batch on a day."""
    import datetime as module

    real, late = time.time, [3600.0]
    time.time = lambda: real() - late[0]

    class Early(module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) - module.timedelta(seconds=late[0])

    from llmft.runs import directory

    directory.datetime = Early  # pyright: ignore[reportAttributeAccessIssue]
    in_batch(2, lambda: late.__setitem__(0, 86400.0))


def slow_writes() -> None:
    """Flushing a file or a folder takes as long as over a busy network."""
    real = os.fsync

    def fsync(handle: int) -> None:
        time.sleep(0.3)
        real(handle)

    os.fsync = fsync


def slow_disk() -> None:
    """And SIGTERM comes while the checkpoint of step 6 is flushed."""
    slow_writes()
    from llmft.runs.checkpoint_io import AtomicCheckpointIO

    real = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(*given: Any, **named: Any) -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        real(*given, **named)

    AtomicCheckpointIO.save_checkpoint = save_checkpoint


def lost_rank_waits() -> None:
    if os.environ.get("LOCAL_RANK"):
        in_batch(4, die)


def lost_rank_is_busy() -> None:
    if os.environ.get("LOCAL_RANK"):
        in_batch(4, die)
    else:
        in_batch(4, lambda: time.sleep(120))


def lost_first() -> None:
    """The first process is killed while the second is busy, and sees no collective fail."""
    in_batch(4, (lambda: time.sleep(120)) if os.environ.get("LOCAL_RANK") else die)


if __name__ == "__main__":
    name = os.environ.get("WORSE") or sys.argv.pop(1)  # Lightning leaves the name away when it starts this again
    os.environ["WORSE"] = name
    globals()[name]()
    from llmft import __main__

    sys.exit(__main__.run(sys.argv[1:]))
