"""Token ids as they are decoded -> pieces of the answer's text, until it ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmft.encoding import Codec
from llmft.generation import Answer
from llmft.sampling import Sampling

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(eq=False)
class Stream:
    """One answer in the making.

    Attributes:
        prompt: Ids that the model continues.
        limit: The most tokens of the answer.
        codec: Makes text of ids.
        stop_ids: Ids that end the answer.
        stops: Texts that end it; they are not part of it.
        banned: Texts that it must not hold (any case); they end it, too.
        sampling: How a token is drawn; None takes the most likely one.
        deadline: On ``time.monotonic``'s clock.
        emit: Gets each piece of text as soon as nothing can change it any more.
        closed: Called once, at the end.
    """

    prompt: Sequence[int]
    limit: int
    codec: Codec
    stop_ids: frozenset[int]
    stops: Sequence[str] = ()
    banned: Sequence[str] = ()
    sampling: Sampling | None = None
    deadline: float = float("inf")
    emit: Callable[[str], None] = lambda _: None
    closed: Callable[[], None] = lambda: None
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)
    text: str = ""  # as far as it is settled
    sent: str = ""  # what was emitted
    reason: str | None = None  # stop | length | filtered | cancelled | late | failed
    started: float | None = None  # when the first token was there

    def take(self, token: int) -> None:
        """The next token; ``reason`` is set where it is the last."""
        self.started = self.started or time.monotonic()
        if self.gone() or token in self.stop_ids:
            return self.end(self.reason or "stop")
        self.ids.append(token)
        return self._tell(final=False) if len(self.ids) < self.limit else self.end("length")

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        if self.reason is None and (self.cancelled or time.monotonic() > self.deadline):
            self.reason = "cancelled" if self.cancelled else "late"
            self.closed()
        return self.reason is not None

    def end(self, reason: str) -> None:
        """Emit what was held back, and close."""
        if self.reason is None:
            self._tell(final=True)
            self.reason = self.reason or reason
            self.closed()

    def fail(self) -> None:
        """Close without an answer."""
        if self.reason is None:
            self.reason = "failed"
            self.closed()

    def answer(self) -> Answer:
        """What has been said so far."""
        return Answer(self.text, self.reason == "stop", len(self.ids))

    def _tell(self, *, final: bool) -> None:
        whole = self.codec.decode(self.ids)
        cut, reason = self._cut(whole)
        if reason:
            self._emit(whole[:cut])
            self.reason = reason
            return None if final else self.closed()
        return self._emit(whole if final else self._settled(whole))

    def _emit(self, text: str) -> None:
        self.text = text
        if len(text) > len(self.sent) and text.startswith(self.sent):
            piece, self.sent = text[len(self.sent) :], text
            self.emit(piece)

    def _cut(self, whole: str) -> tuple[int, str | None]:
        """Where the first stop or banned text begins, and which kind it is."""
        folded = whole.lower()
        found = [(whole.find(text), "stop") for text in self.stops]
        found += [(folded.find(text.lower()), "filtered") for text in self.banned]
        return min(((at, reason) for at, reason in found if at >= 0), default=(len(whole), None))

    def _settled(self, whole: str) -> str:
        """The text without what the next tokens may still change: half a character, or the start of a stop."""
        whole = whole.rstrip(UNFINISHED)
        if self.codec.template.frame[0].startswith(whole):
            return ""
        folded = whole.lower()
        held = max((_overlap(whole, text) for text in self.stops), default=0)
        held = max((held, *(_overlap(folded, text.lower()) for text in self.banned)))
        return whole[: len(whole) - held]


def _overlap(text: str, stop: str) -> int:
    """How long an end of ``text`` is the beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

