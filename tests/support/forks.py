"""A fork that holds something until it is killed."""

import os
import signal
import time


def forked(work) -> int:
    """Run ``work`` in a fork and wait until it has printed a byte."""
    ready, tell = os.pipe()
    if pid := os.fork():
        os.close(tell)
        assert os.read(ready, 1) == b"."
        os.close(ready)
        return pid
    try:
        kept = work()  # noqa: F841 (held until the end)
        os.write(tell, b".")
        time.sleep(600)  # it is killed before
    finally:
        os._exit(1)


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
