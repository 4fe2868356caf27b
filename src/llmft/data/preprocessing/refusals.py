"""The rows that a data set refuses: how many and where, for which reasons, and the keys that would let them pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmft.data.detect import Reading, fields_of, readings
from llmft.data.records import RowError
from llmft.data.sources import ParsedRow
from llmft.utils.errors import SHOWN_FAULTS, UserError

# Where this many rows at the start are all refused for one reason, or in another format, the others are not read.
ALL_BAD = 20


@dataclass
class Refused:
    """The rows that are refused for one reason.

    Attributes:
        fault: That of the first of them.
        key: What lets them pass; empty if only leaving them out does.
        forbidden: Whether such rows are an error; else they are dropped.
        places: The first ones.
        count: How many there are.
    """

    fault: str
    key: str
    forbidden: bool
    places: list[str] = field(default_factory=list)
    count: int = 0

    def line(self) -> str:
        """Their first places, the reason, and what lets them pass."""
        rows = f" ({self.count:,} rows)" if self.count > 1 else ""
        return f"{short_places(self.places, self.count)}: {self.fault}{rows}{self.key and f'; {self.key}'}"


class Refusals:
    """Collects the rows of one file that are refused, and says all of it in one message.

    Args:
        given: The key of the file, with its value.
        name: The data set that reads them; None where another one cannot be proposed, as for a file of validation rows.

    Attributes:
        read: Number of rows that were read.
        kept: Of these, those that were not refused.
        reasons: The refused rows by the kind of their fault.
        rows: The first refused rows, as long as none was kept.
        unreadable: Rows among them that are none, such as broken JSON.
        other_format: Whether another data set could accept them.
    """

    def __init__(self, given: str, name: str | None) -> None:
        self.given, self.name = given, name
        self.read, self.kept, self.unreadable = 0, 0, 0
        self.reasons: dict[str, Refused] = {}
        self.rows: list[Mapping[str, Any]] = []
        self.other_format = name is not None

    def add(self, located: ParsedRow, error: RowError, key: str, *, forbidden: bool) -> None:
        """Add a refused row; ``key`` says what lets it pass."""
        reason = self.reasons.setdefault(error.kind, Refused(str(error), key, forbidden))
        reason.count += 1
        if len(reason.places) < SHOWN_FAULTS:
            reason.places.append(located.place)
        if not self.kept and self.read <= ALL_BAD:
            self.unreadable += not isinstance(located.row, Mapping)
            self.rows += [located.row] if isinstance(located.row, Mapping) else []

    @property
    def forbidden(self) -> list[Refused]:
        """The reasons that are an error, the most frequent one first."""
        found = [reason for reason in self.reasons.values() if reason.forbidden]
        return sorted(found, key=lambda reason: -reason.count)

    @property
    def ends_reading(self) -> bool:
        """Whether the first ``ALL_BAD`` rows are all refused, for one reason or because another data set reads them."""
        if self.kept or self.read != ALL_BAD:
            return False
        return bool(self.others()) or len(self.reasons) == len(self.forbidden) == 1

    def others(self) -> list[Reading]:
        """The readings that accept most of the rows of which none is accepted here; at most two."""
        if not self.other_format or self.kept or not self.rows:
            return []
        found = [replace(reading, rows=reading.rows + self.unreadable) for reading in readings(self.rows)]
        return [reading for reading in found if len(reading.examples) == len(found[0].examples)][:2]

    def error(self, *, first_only: bool = False) -> UserError:
        """The message: how many rows, the keys that let them pass, and each reason with its first places.

        Args:
            first_only: Whether the first refused row ended the reading, so that nothing is known of the others.
        """
        reasons = self.forbidden or [*self.reasons.values()]
        lines = [reason.line() for reason in reasons[:SHOWN_FAULTS]]
        if more := reasons[SHOWN_FAULTS:]:
            lines.append(f"and {sum(reason.count for reason in more):,} rows for {len(more)} other reasons")
        head = "a row is refused" if first_only else self._how_many(sum(reason.count for reason in reasons))
        listed = "".join(f"\n  - {line}" for line in lines)
        return UserError(f"{self.given}: {head}{self._way_out(first_only=first_only)}{listed}")

    def _how_many(self, refused: int) -> str:
        by = f" by data={self.name}" if any(reading.data != self.name for reading in self.others()) else ""
        if refused < self.read:
            return f"{refused:,} of {self.read:,} rows {'is' if refused == 1 else 'are'} refused{by}"
        if self.read == 1:
            return f"its only row is refused{by}"
        return f"{'all of the first' if self.ends_reading else 'all'} {self.read:,} rows are refused{by}"

    def _way_out(self, *, first_only: bool) -> str:
        if others := self.others():
            ways = [reading.way_in for reading in others]
            accepted, rows = len(others[0].examples), others[0].rows
            count = "them" if accepted == rows else f"{accepted} of the first {rows}"
            kind = f" ({others[0].kind(fields_of(self.rows))})" if len(others) == 1 else ""
            return f"; {' or '.join(ways)} reads {count}{kind}"
        invalid = [reason for reason in self.forbidden if not reason.fault.startswith("duplicate")]
        if not invalid or not (self.kept or first_only):
            return ""
        left = "such rows out" if first_only else f"{_them(invalid)} out ({self.kept:,} left)"
        return f"; data.invalid=drop leaves {left}"


def _them(invalid: Sequence[Refused]) -> str:
    return "it" if sum(reason.count for reason in invalid) == 1 else "them"


def short_places(places: Sequence[str], count: int) -> str:
    """``rows.jsonl:2, 3, 4, ...``: places, each file once; the dots if there are more than these."""
    return ", ".join([*_without_repeats(places), *(["..."] if count > len(places) else [])])


def _without_repeats(places: Sequence[str]) -> Iterator[str]:
    before = ""
    for place in places:
        file, colon, number = place.rpartition(":")
        yield number if colon and file == before else place
        before = file
