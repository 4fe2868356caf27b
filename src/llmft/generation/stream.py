"""Token ids as they are decoded -> pieces of the answer's text, until it ends."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmft.data.tokenization.codec import Codec
from llmft.generation.sampling import Sampling

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Answer(NamedTuple):
    """A generated answer: its text, whether it ended with a stop token, and its length in tokens without that one.

    ``votes``: with several samples per prompt, how many of them agree with this one.
    """

    text: str
    ended: bool
    tokens: int
    votes: int | None = None


@dataclass(eq=False)
class Stream:
    """One sequence that is being decoded, and the text of its answer.

    Attributes:
        prompt: Token ids to continue.
        limit: Max tokens of the answer.
        codec: Decodes token ids.
        stop_ids: Token ids that end the answer.
        stops: Strings that end the answer; they are not part of it.
        banned: Words and phrases that end it too, case-insensitive, where they stand as whole words.
        max_characters: Max characters of the answer.
        sampling: How tokens are sampled; None is greedy.
        emit: Called with each piece of text as soon as later tokens cannot change it; None without a listener.
        closed: Called once, at the end.
        cancelled: Set by the caller when the answer is no longer needed.
        text: The answer so far; without a listener only at the end.
        reason: Why the answer ended: stop, length, filtered, cancelled or failed; None while it is decoded.
        started: Time of its first token, by ``time.perf_counter``.
    """

    prompt: Sequence[int]
    limit: int
    codec: Codec
    stop_ids: frozenset[int]
    stops: Sequence[str] = ()
    banned: Sequence[str] = ()
    max_characters: int | None = None
    sampling: Sampling | None = None
    emit: Callable[[str], None] | None = None
    closed: Callable[[], None] = lambda: None
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)
    text: str = ""
    emitted: str = ""
    reason: str | None = None
    started: float | None = None

    def take(self, token: int) -> None:
        """Append the next token; sets ``reason`` if it is the last."""
        self.started = self.started or time.perf_counter()
        if self.is_done():
            return
        if token in self.stop_ids:
            self.end("stop")
            return
        self.ids.append(token)
        if len(self.ids) >= self.limit:
            self.end("length")
        elif self._needs_text():
            self._update(None)

    def is_done(self) -> bool:
        """Whether the answer has ended or was cancelled."""
        if self.reason is None and self.cancelled:
            self._close("cancelled")
        return self.reason is not None

    def end(self, reason: str) -> None:
        """Emit the text that was held back, and close."""
        if self.reason is None:
            self._update(reason)

    def fail(self) -> None:
        """Close without the rest of the answer."""
        if self.reason is None:
            self._close("failed")

    def answer(self) -> Answer:
        """The answer so far."""
        return Answer(self.text, self.reason == "stop", len(self.ids))

    def _needs_text(self) -> bool:
        """Whether the text is needed at every token: for a listener, or because it may end the answer."""
        return bool(self.emit or self.stops or self.banned) or self.max_characters is not None

    def _close(self, reason: str) -> None:
        self.reason = reason
        self.closed()

    def _update(self, reason: str | None) -> None:
        """Decode the ids, emit the new text, and close for ``reason`` or because the text ends the answer."""
        full = self.codec.decode(self.ids)
        cut, why = self._cut(full, final=reason is not None)
        if why is None and reason is None:
            full = self._stable(full)
        self.text = full[:cut]
        if self.emit and len(self.text) > len(self.emitted) and self.text.startswith(self.emitted):
            piece, self.emitted = self.text[len(self.emitted) :], self.text
            self.emit(piece)
        if why or reason:
            self._close(why or reason or "")

    def _cut(self, full: str, *, final: bool) -> tuple[int, str | None]:
        """Position of the first string that ends the answer, and the reason."""
        found = [(full.find(text), "stop") for text in self.stops]
        for words in self.banned:
            match = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", full, re.IGNORECASE)
            # at the very end it may still be part of a longer word
            if match and (final or match.end() < len(full)):
                found.append((match.start(), "filtered"))
        if self.max_characters is not None and len(full) > self.max_characters:
            found.append((self.max_characters, "length"))
        return min((at for at in found if at[0] >= 0), default=(len(full), None))

    def _stable(self, full: str) -> str:
        """The text without a tail that later tokens may change: an incomplete character, or the start of a stop string."""
        full = full.rstrip(UNFINISHED)
        if self.codec.lead.startswith(full):
            return ""
        held = max((_overlap(full, text, len(text) - 1) for text in self.stops), default=0)
        held = max((held, *(_overlap(full.lower(), text.lower(), len(text)) for text in self.banned)))
        return full[: len(full) - held]


def _overlap(text: str, stop: str, max_length: int) -> int:
    """Length of the longest suffix of ``text`` that is a prefix of ``stop``."""
    return next((n for n in range(min(max_length, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
