"""Every signal handler that llmft sets, and the order in which those of the libraries come and go.

Ctrl-C (SIGINT) and SIGTERM both end as KeyboardInterrupt in the main thread, so there is one way to stop: ``run.json`` gets the
status ``interrupted`` and the process exits with 130. From top to bottom, each row replaces the handlers of the rows above it
while it lasts, and puts them back at its end (I: SIGINT, T: SIGTERM).

======================= ================================================================= ====================================
while                   the signal                                                        handler set by
======================= ================================================================= ====================================
start of a process      I: KeyboardInterrupt (ignored in a background job); T: exit       Python
``__main__.launch``     T: KeyboardInterrupt, until the process ends                      ``on_terminate``
``hydra.main``          none; KeyboardInterrupt passes, other errors become SystemExit
sweep job in a worker   T: KeyboardInterrupt, unless the launcher handles it (submitit    ``on_terminate(unless_set=True)``
                        puts the job back into the queue)
``Trainer.fit``         T: kill the other ranks, then the handler before it;              Lightning
                        KeyboardInterrupt becomes SystemExit, ``as_interrupt`` undoes it
training steps          I, T: the first one finishes the optimizer step, saves, stops;    ``graceful`` in
                        the second one is a KeyboardInterrupt                             ``callbacks.interruption``
encoding processes      I: ignored, the parent ends them; T: exit                         ``ignored_in_worker``
loader workers          I: ignored; T: exit                                               torch
``chat``                T: SystemExit(130), since at the prompt KeyboardInterrupt only    ``on_terminate``
                        clears the line
``chat``, in an answer  I: the first one stops the answer, the second one is a            ``graceful`` in ``chat.session``
                        KeyboardInterrupt
``serve``               I, T: finish open requests, then the same signal again under the  uvicorn
                        handlers before it
``llmft.train``         as from ``Trainer.fit`` on; a notebook's handlers are put back    ``restored``
======================= ================================================================= ====================================

The processes of a run with several devices (``utils.distributed``) start as ``__main__`` and follow the same rows. One that has
lost the others ends with ``os._exit``: while it waits in a collective it handles no signal.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


def on_terminate(handler: Callable[..., Any] = signal.default_int_handler, *, unless_set: bool = False) -> None:
    """Handle SIGTERM; by default as Ctrl-C is handled, with a KeyboardInterrupt.

    Args:
        handler: As for ``signal.signal``.
        unless_set: Leave a handler that somebody else has set.
    """
    if not unless_set or signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def graceful(stop: Callable[[], Any], *numbers: signal.Signals) -> Iterator[None]:
    """Let the first signal of the block call ``stop`` and the second one raise KeyboardInterrupt.

    Outside of the main thread, where Python allows no handlers, signals stay as they are.

    Args:
        stop: Called in the main thread, between two bytecodes: it should do no more than set a flag.
        numbers: The signals; SIGINT and SIGTERM by default.

    Raises:
        KeyboardInterrupt: At the second signal.
    """
    requested = False

    def handle(*_: Any) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        stop()

    with restored():
        if threading.current_thread() is threading.main_thread():
            for number in numbers or STOPPING:
                signal.signal(number, handle)
        yield


@contextmanager
def restored() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back at the end of the block."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that was not set from Python cannot be set again
                    signal.signal(number, handler)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt where Lightning, having met one, ends the process with SystemExit.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None


def ignored_in_worker() -> None:
    """In a worker process: leave Ctrl-C, which the terminal sends to every process, to the parent; end at SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def terminate() -> None:
    """Send SIGTERM to this process, from any thread."""
    os.kill(os.getpid(), signal.SIGTERM)


def name_of(returncode: int) -> str:
    """The name of the signal that killed a process, by its negative return code, such as ``SIGKILL``."""
    return signal.Signals(-returncode).name
