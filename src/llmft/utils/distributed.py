"""The processes of a run: which one this is, and that they end together. The first one writes files and talks."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from llmft.utils import signals
from llmft.utils.console import say
from llmft.utils.errors import UserError
from llmft.utils.rank import is_first, started_outside

# A process that hangs in a collective sees no signal; one that met the same error ends by itself well within this.
SECONDS_TO_END = 5.0
SECONDS_BETWEEN_LOOKS = 0.2
# Set for a job that a sweep runs in a process of its own, to the process that waits for it: without that it saves and ends.
FOLLOWS = "LLMFT_FOLLOWS"


def share_cores(trainer: Any) -> str | None:
    """Give each process of a node its share of the cores as threads, where ``OMP_NUM_THREADS`` does not say how many.

    Otherwise each would take all of them: two processes with two threads each on two cores wait for each other. (Workers of a
    loader take one thread each: torch's own doing.)

    Args:
        trainer: The config.

    Returns:
        What was done, for the log; None for a run of one process, which is left as it is.
    """
    import torch

    if trainer.devices * trainer.num_nodes == 1:
        return None
    if given := os.environ.get("OMP_NUM_THREADS"):
        return f"threads: {torch.get_num_threads()} for each process, by OMP_NUM_THREADS={given}"
    # where SLURM was told the cores of a task, no other task has them
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(own) if own else max(1, cores // trainer.devices))
    why = f"SLURM_CPUS_PER_TASK={own}" if own else f"{cores} cores for {trainer.devices} processes"
    return f"threads: {torch.get_num_threads()} for each process ({why}; OMP_NUM_THREADS=N decides otherwise)"


def agree(strategy: Any, error: UserError | None) -> None:
    """Make an error of the first process one of all, so that none waits for it for ever.

    Args:
        strategy: Lightning's; all its processes must call this.
        error: What the first process met, if anything.

    Raises:
        UserError: On all processes; the first one says it.
    """
    message = strategy.broadcast(str(error) if error else None)
    if message:
        raise UserError.of_all_ranks(message) from error


@contextmanager
def ending_together(strategy: Any, failed: Callable[[str], None]) -> Iterator[None]:
    """If one process fails, end the others that Lightning started with it: they would wait for it in a collective.

    Args:
        strategy: Lightning's.
        failed: Told why, in the first process, before it ends without a way back.

    Raises:
        UserError: Another process is lost.
    """
    if "LOCAL_RANK" in os.environ and not is_first() and not started_outside():
        follow(os.getppid(), lambda: os._exit(1))
    others = WorkerProcesses(strategy, failed)
    try:
        yield
    except BaseException as error:
        others.watched = False
        lost = others.end()
        # an error of this process's own ends the others, too
        if lost and isinstance(error, RuntimeError) and any(words in str(error) for words in COLLECTIVE):
            raise lost from error
        raise
    finally:
        others.watched = False


# How a collective fails where another process has gone.
COLLECTIVE = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "NCCL")


class WorkerProcesses:
    """The processes that Lightning started for this one, watched for one that is lost.

    Lightning's own watch kills this process as soon as one of them ends with an error: nobody would be told why, and
    ``run.json`` would say that it is running. So its list of them is emptied before it looks.
    """

    def __init__(self, strategy: Any, failed: Callable[[str], None]) -> None:
        self.launcher, self.failed = strategy.launcher, failed
        self.expected = getattr(self.launcher, "num_processes", 1) - 1
        self.processes: list[subprocess.Popen[Any]] = []
        self.watched = self.expected > 0 and hasattr(self.launcher, "procs")
        if self.watched:
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> UserError | None:
        """Wait for them, and kill those that do not end; returns what is to be said of the first that was lost."""
        self._take()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        lost = self.lost()
        for process in self.processes:
            process.kill()
        return lost

    def lost(self) -> UserError | None:
        """The first that ended with an error."""
        for number, process in enumerate(self.processes, start=2):
            if code := process.poll():
                how = f"was killed by {signals.name_of(code)}" if code < 0 else f"ended with exit code {code}"
                why = ", mostly for want of memory" if code == -signal.SIGKILL else "; what it said stands above"
                return WorkerLost(f"process {number} of {self.expected + 1} {how}{why}", code)
        return None

    def _take(self) -> None:
        started = getattr(self.launcher, "procs", [])
        if len(started) == self.expected:
            self.processes += started
            started.clear()

    def _watch(self) -> None:
        while self.watched:
            self._take()
            if lost := self.lost():
                time.sleep(SECONDS_TO_END)  # mostly the collective fails, or this process meets the same error
                if self.watched:
                    self._end_at_once(lost)
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _end_at_once(self, lost: UserError) -> None:
        self.failed(str(lost))
        say(str(lost))
        for process in self.processes:
            process.kill()
        os._exit(lost.exit_code)


class WorkerLost(UserError):
    """Another process of the run is gone.

    Args:
        message: What happened.
        code: How it ended: its exit code becomes the run's, but for one that was killed.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if code > 0 else UserError.exit_code


def follow(parent: int, then: Callable[[], Any]) -> None:
    """Call ``then`` when the process ``parent``, which started this one, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        then()

    threading.Thread(target=watch, daemon=True).start()


def end_with_parent(*_: Any) -> None:
    """In a process that multiprocessing started: end when the process that asked for it has ended.

    torch's loader workers look whether their parent is another one than when they began to look: one whose parent was killed
    before that, or a fork server's that outlives it, waits for ever. The pipe that says so here is there from the start.
    """
    parent = multiprocessing.parent_process()
    sys.excepthook = tell_but_lost_readers

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def tell_but_lost_readers(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An excepthook for workers: that a run which ends does not fetch a batch any more is no news."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
