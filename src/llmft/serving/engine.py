"""Scheduler: one thread decodes the queued streams in continuous batches."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from llmft.generation.decoder import Decoder
from llmft.generation.stream import Stream

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """The queue has no room for these streams."""


class EngineClosed(Exception):
    """The server is shutting down."""


class _Waiting(NamedTuple):
    model: str
    stream: Stream


class Engine:
    """Decodes the streams of several models. Models may share weights, so only one runs at a time.

    Args:
        decoders: The models by name.
        max_batch: Max streams that are decoded at once.
        max_waiting: Max streams in the queue.
        on_batch_size: Called with the batch size whenever it grows.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        max_batch: int,
        max_waiting: int,
        on_batch_size: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.decoders, self.max_batch, self.max_waiting = decoders, max_batch, max_waiting
        self.on_batch_size = on_batch_size
        self.waiting: deque[_Waiting] = deque()
        self.running: list[Stream] = []
        self.open = True
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="llmft-engine", daemon=True)
        self.thread.start()

    def submit(self, model: str, streams: Sequence[Stream]) -> None:
        """Queue all of the streams, or none.

        Raises:
            QueueFull: There is no room for all of them.
            EngineClosed: The server is shutting down.
        """
        with self.changed:
            if not self.open:
                raise EngineClosed
            # streams that fit into the running batch do not wait
            if len(self.waiting) + self.busy() + len(streams) > self.max_waiting + self.max_batch:
                raise QueueFull
            self.waiting.extend(_Waiting(model, stream) for stream in streams)
            self.changed.notify()

    def cancel(self, streams: Sequence[Stream]) -> None:
        """Cancel streams: queued ones leave at once, running ones at their next token."""
        for stream in streams:
            stream.cancelled = True
        with self.changed:
            self.waiting = deque(entry for entry in self.waiting if not entry.stream.cancelled)

    def busy(self) -> int:
        """Number of running streams."""
        return sum(stream.reason is None for stream in self.running)

    def close(self, seconds: float) -> None:
        """Accept no more streams, and wait up to ``seconds`` for the running ones to end."""
        with self.changed:
            self.open = False
            self.changed.notify()
        self.thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self.changed:
                while self.open and not self.waiting:
                    self.changed.wait()
                if not self.waiting:
                    return
                model = self.waiting[0].model
                streams = self._pop(model, self.max_batch, in_order=False)
                self.running = streams
            self._decode(model, streams)

    def _decode(self, model: str, streams: list[Stream]) -> None:
        def admit(running: int) -> list[Stream]:
            with self.changed:
                new = self._pop(model, self.max_batch - running, in_order=True)
                self.running = (
                    [stream for stream in self.running if stream.reason is None] + new if new else self.running
                )
            if new:
                self.on_batch_size(running + len(new))
            return new

        self.on_batch_size(len(streams))
        try:
            self.decoders[model].run(streams, admit)
        except Exception:
            log.exception("generation failed for %d running answers", len(self.running))
        finally:
            for stream in self.running:  # no stream is left open
                stream.fail()
            self.running = []

    def _pop(self, model: str, limit: int, *, in_order: bool) -> list[Stream]:
        """Take up to ``limit`` streams of a model from the queue.

        With ``in_order`` it stops at the first stream of another model, so that this one cannot starve.
        """
        taken: list[_Waiting] = []
        for entry in self.waiting:
            if len(taken) == limit or (in_order and entry.model != model):
                break
            if entry.model == model:
                taken.append(entry)
        self.waiting = deque(entry for entry in self.waiting if entry not in taken)
        return [entry.stream for entry in taken]
