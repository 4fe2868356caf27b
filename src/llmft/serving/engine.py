"""Streams that wait -> streams that are answered: one thread that keeps the model busy with full batches."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from llmft.generation.decoder import Decoder
from llmft.generation.stream import Stream

log = logging.getLogger(__name__)


class Full(Exception):
    """No more streams may wait."""


class Closed(Exception):
    """The server is going down."""


class _Waiting(NamedTuple):
    model: str
    stream: Stream


class Engine:
    """Asks several models, which may share weights, so one after the other; each as many streams at once as may be.

    Args:
        decoders: The models by name.
        max_batch: How many streams are answered at once.
        max_waiting: How many more may wait.
        watch: Told the size of a batch whenever it grows.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        max_batch: int,
        max_waiting: int,
        watch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.decoders, self.max_batch, self.max_waiting, self.watch = decoders, max_batch, max_waiting, watch
        self.waiting: deque[_Waiting] = deque()
        self.running: list[Stream] = []
        self.open = True
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="llmft-engine", daemon=True)
        self.thread.start()

    def submit(self, model: str, streams: Sequence[Stream]) -> None:
        """Put streams in the queue, all or none.

        Raises:
            Full: They would be too many.
            Closed: The server is going down.
        """
        with self.changed:
            if not self.open:
                raise Closed
            # what will be taken at once does not wait
            if len(self.waiting) + self.busy() + len(streams) > self.max_waiting + self.max_batch:
                raise Full
            self.waiting.extend(_Waiting(model, stream) for stream in streams)
            self.changed.notify()

    def cancel(self, streams: Sequence[Stream]) -> None:
        """Nobody waits for these any more: those in the queue leave it now, the others at their next token."""
        for stream in streams:
            stream.cancelled = True
        with self.changed:
            self.waiting = deque(one for one in self.waiting if not one.stream.cancelled)

    def busy(self) -> int:
        """How many streams are being answered."""
        return sum(stream.reason is None for stream in self.running)

    def close(self, seconds: float) -> None:
        """Take no more, and end when what is being answered has ended, or after that time."""
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
                streams = self._taken(model, self.max_batch, in_order=False)
                self.running = streams
            self._answer(model, streams)

    def _answer(self, model: str, streams: list[Stream]) -> None:
        def more(running: int) -> list[Stream]:
            with self.changed:
                new = self._taken(model, self.max_batch - running, in_order=True)
                self.running = (
                    [stream for stream in self.running if stream.reason is None] + new if new else self.running
                )
            if new:
                self.watch(running + len(new))
            return new

        self.watch(len(streams))
        try:
            self.decoders[model].run(streams, more)
        except Exception:
            log.exception("the model failed while it answered %d requests", len(self.running))
        finally:
            for stream in self.running:  # none is left without an end
                stream.fail()
            self.running = []

    def _taken(self, model: str, most: int, *, in_order: bool) -> list[Stream]:
        """Streams of a model out of the queue; in order, so that a stream of another model is not passed for ever."""
        taken: list[_Waiting] = []
        for one in self.waiting:
            if len(taken) == most or (in_order and one.model != model):
                break
            if one.model == model:
                taken.append(one)
        self.waiting = deque(one for one in self.waiting if one not in taken)
        return [one.stream for one in taken]
