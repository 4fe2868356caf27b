"""The processes (ranks) of a run: threads of each, errors that all of them raise, and ending together."""

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

# A process that waits in a collective handles no signal; one that raised the same error exits by itself well within this.
SECONDS_TO_END = 5.0
SECONDS_BETWEEN_LOOKS = 0.2
# Set for a job that a sweep runs in its own process: the id of the process that waits for it. When that has ended, the job
# saves a checkpoint and ends too.
FOLLOWS = "LLMFT_FOLLOWS"


def share_cores(trainer: Any) -> str | None:
    """Set the number of threads of each process of a node to its share of the cores, unless ``OMP_NUM_THREADS`` is set.

    By default each process would use all cores: two processes with two threads each on two cores wait for each other. (torch
    gives each loader worker one thread.)

    Args:
        trainer: The config.

    Returns:
        The choice and its reason, for the log; None for a run with one process, which is not changed.
    """
    import torch

    if trainer.devices * trainer.num_nodes == 1:
        return None
    if given := os.environ.get("OMP_NUM_THREADS"):
        return f"threads: {torch.get_num_threads()} for each process, by OMP_NUM_THREADS={given}"
    # SLURM assigns cores to a task exclusively
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(own) if own else max(1, cores // trainer.devices))
    why = f"SLURM_CPUS_PER_TASK={own}" if own else f"{cores} cores for {trainer.devices} processes"
    return f"threads: {torch.get_num_threads()} for each process ({why}; OMP_NUM_THREADS=N decides otherwise)"


def agree(strategy: Any, error: UserError | None) -> None:
    """Raise an error of rank 0 on every rank, so that none waits for it in a collective.

    Args:
        strategy: Lightning's; every rank must call this.
        error: The error of rank 0, if any.

    Raises:
        UserError: On every rank; rank 0 prints it.
    """
    message = strategy.broadcast(str(error) if error else None)
    if message:
        raise UserError.of_all_ranks(message) from error


@contextmanager
def ending_together(strategy: Any, failed: Callable[[str], None]) -> Iterator[None]:
    """If one rank fails, end the others that Lightning started: they would wait for it in a collective.

    Args:
        strategy: Lightning's.
        failed: Called with the reason in rank 0 just before ``os._exit``.

    Raises:
        UserError: Another rank was killed or failed.
    """
    if "LOCAL_RANK" in os.environ and not is_first() and not started_outside():
        follow(os.getppid(), lambda: os._exit(1))
    others = WorkerProcesses(strategy, failed)
    try:
        yield
    except BaseException as error:
        others.watched = False
        lost = others.end()
        # only an error of a collective is a consequence of the lost rank
        if lost and isinstance(error, RuntimeError) and any(words in str(error) for words in COLLECTIVE):
            raise lost from error
        raise
    finally:
        others.watched = False


# How a collective fails when another process has ended.
COLLECTIVE = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "NCCL")


class WorkerProcesses:
    """The processes that Lightning started for this one, watched for one that fails.

    Lightning's own watch kills this process as soon as one of them exits with an error: no reason would be printed, and
    ``run.json`` would keep the status ``running``. So its list of processes is emptied before it looks.
    """

    def __init__(self, strategy: Any, failed: Callable[[str], None]) -> None:
        self.launcher, self.failed = strategy.launcher, failed
        self.expected = getattr(self.launcher, "num_processes", 1) - 1
        self.processes: list[subprocess.Popen[Any]] = []
        self.watched = self.expected > 0 and hasattr(self.launcher, "procs")
        if self.watched:
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> UserError | None:
        """Wait for the processes, kill those that do not end, and return the error of the first that failed."""
        self._take()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        lost = self.lost()
        for process in self.processes:
            process.kill()
        return lost

    def lost(self) -> UserError | None:
        """The error of the first process that failed, if any."""
        for number, process in enumerate(self.processes, start=2):
            if code := process.poll():
                how = f"was killed by {signals.name_of(code)}" if code < 0 else f"ended with exit code {code}"
                why = ", probably out of memory" if code == -signal.SIGKILL else "; its own message is above"
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
                time.sleep(SECONDS_TO_END)  # usually the collective fails first, or this process raises the same error
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
    """Another process of the run failed.

    Args:
        message: What happened.
        code: Its return code; a positive one becomes the exit code of the run.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if code > 0 else UserError.exit_code


def follows_parent() -> bool:
    """Whether this process is a job that a sweep has started in a process of its own."""
    return os.environ.get(FOLLOWS) == str(os.getppid())


def follow(parent: int, then: Callable[[], Any]) -> None:
    """Call ``then``, in a thread, when the parent process ``parent`` has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        then()

    threading.Thread(target=watch, daemon=True).start()


def end_with_parent(*_: Any) -> None:
    """In a process of multiprocessing: exit when the process that requested it has ended.

    torch's loader workers compare their parent's id with the one at their start: a worker whose parent was killed before that,
    or the child of a fork server that outlives it, waits forever. The pipe that is watched here exists from the start.
    """
    parent = multiprocessing.parent_process()
    sys.excepthook = ignore_lost_readers

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ignore_lost_readers(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An excepthook for workers: no traceback when the run ends and fetches no further batch."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
