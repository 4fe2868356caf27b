"""Token ids as they are decoded -> pieces of the answer's text, until it ends."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmft.data.tokenization.codec import Codec
from llmft.generation.generator import Answer
from llmft.generation.sampling import Sampling

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
        banned: Words and phrases that end it too, in any case, where they stand as whole words.
        max_characters: The most characters of it.
        sampling: How a token is drawn; None takes the most likely one.
        emit: Gets each piece of text as soon as nothing can change it any more.
        closed: Called once, at the end.
        cancelled: Set from outside, where nobody waits for the answer any more.
        text: The answer as far as it is settled.
        reason: Why it ended: stop, length, filtered, cancelled or failed.
        started: When its first token was there, on ``time.perf_counter``'s clock.
    """

    prompt: Sequence[int]
    limit: int
    codec: Codec
    stop_ids: frozenset[int]
    stops: Sequence[str] = ()
    banned: Sequence[str] = ()
    max_characters: int | None = None
    sampling: Sampling | None = None
    emit: Callable[[str], None] = lambda _: None
    closed: Callable[[], None] = lambda: None
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)
    text: str = ""
    sent: str = ""
    reason: str | None = None
    started: float | None = None

    def take(self, token: int) -> None:
        """The next token; ``reason`` is set where it is the last."""
        self.started = self.started or time.perf_counter()
        if self.gone():
            return
        if token in self.stop_ids:
            self.end("stop")
            return
        self.ids.append(token)
        if len(self.ids) >= self.limit:
            self.end("length")
        else:
            self._tell(None)

    def gone(self) -> bool:
        """Whether it has ended, or nobody waits for it any more."""
        if self.reason is None and self.cancelled:
            self._close("cancelled")
        return self.reason is not None

    def end(self, reason: str) -> None:
        """Emit what was held back, and close."""
        if self.reason is None:
            self._tell(reason)

    def fail(self) -> None:
        """Close without the rest of the answer."""
        if self.reason is None:
            self._close("failed")

    def answer(self) -> Answer:
        """What has been said so far."""
        return Answer(self.text, self.reason == "stop", len(self.ids))

    def _close(self, reason: str) -> None:
        self.reason = reason
        self.closed()

    def _tell(self, reason: str | None) -> None:
        whole = self.codec.decode(self.ids)
        cut, why = self._cut(whole, final=reason is not None)
        if why is None and reason is None:
            whole = self._settled(whole)
        self.text = whole[:cut]
        if len(self.text) > len(self.sent) and self.text.startswith(self.sent):
            piece, self.sent = self.text[len(self.sent) :], self.text
            self.emit(piece)
        if why or reason:
            self._close(why or reason or "")

    def _cut(self, whole: str, *, final: bool) -> tuple[int, str | None]:
        """Where the first text that ends the answer begins, and what kind it is."""
        found = [(whole.find(text), "stop") for text in self.stops]
        for words in self.banned:
            match = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", whole, re.IGNORECASE)
            # at the very end it may still become another word
            if match and (final or match.end() < len(whole)):
                found.append((match.start(), "filtered"))
        if self.max_characters is not None and len(whole) > self.max_characters:
            found.append((self.max_characters, "length"))
        return min((at for at in found if at[0] >= 0), default=(len(whole), None))

    def _settled(self, whole: str) -> str:
        """The text without what the next tokens may still change: half a character, or the start of what would end it."""
        whole = whole.rstrip(UNFINISHED)
        if self.codec.template.frame[0].startswith(whole):
            return ""
        held = max((_overlap(whole, text, len(text) - 1) for text in self.stops), default=0)
        held = max((held, *(_overlap(whole.lower(), text.lower(), len(text)) for text in self.banned)))
        return whole[: len(whole) - held]


def _overlap(text: str, ending: str, most: int) -> int:
    """How long an end of ``text`` is the beginning of ``ending``."""
    return next((n for n in range(min(most, len(text)), 0, -1) if text.endswith(ending[:n])), 0)
