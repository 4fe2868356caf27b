"""Streams and events of the pretended device: everything has happened when it is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.pretended_cuda.counts import COUNTS


class Stream:
    """In place of ``torch.cuda.Stream``."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, stream: "Stream") -> None: ...

    def wait_event(self, event: "Event") -> None: ...

    def record_event(self, event: "Event | None" = None) -> "Event":
        return event or Event()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        COUNTS.add("sync", "synchronize")


class Event:
    """In place of ``torch.cuda.Event``."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, stream: Stream | None = None) -> None: ...

    def wait(self, stream: Stream | None = None) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        COUNTS.add("sync", "synchronize")

    def elapsed_time(self, end: "Event") -> float:  # noqa: ARG002
        return 1.0


ONLY = Stream()


def current_stream(device: Any = None) -> Stream:  # noqa: ARG001
    """In place of ``torch.cuda.current_stream``."""
    return ONLY


@contextmanager
def stream(chosen: Stream | None) -> Iterator[Stream | None]:
    """In place of ``torch.cuda.stream``."""
    yield chosen


FUNCTIONS = {
    "Stream": Stream,
    "Event": Event,
    "current_stream": current_stream,
    "default_stream": current_stream,
    "stream": stream,
}
