"""Row counts: how many rows were read, kept, dropped and why, trimmed, and what the tokenizer did to them."""

import json
import shutil
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llmft.data.preprocessing.truncation import Truncation
from llmft.data.tokenization.codec import EncodedExample
from llmft.utils.text import json_line

SHOWN = 6  # lost characters and control tokens per line
NAMES = {"\n": "newline", "\t": "tab", "\r": "carriage return", " ": "space"}


@dataclass
class RowCounts:
    """Row counts of a data set, for the terminal, ``run.json`` and ``rejected.jsonl``.

    Attributes:
        source: ``data.path`` as the user wrote it.
        sha256: Digest of the file.
        budgets: Max tokens of a ``prompt`` and of an ``answer``.
        kept: Rows with trained tokens; ``read`` is the sum of ``kept`` and ``dropped``.
        invalid: Rows that were dropped as invalid, by the kind of their fault.
        sequences: Encoded examples; each trained turn of a conversation may be one.
        files: ``rejected.jsonl`` of saved counts that were added.
        read_as: What the content of files has decided about how they are read: encoding, delimiter, sheet; a line each.
    """

    source: str
    sha256: str | None
    budgets: dict[str, int] = field(default_factory=dict)
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)
    trimmed: int = 0
    cut: int = 0
    kept: int = 0
    unused: int = 0
    supervised_tokens: int = 0
    bos_per_row: Counter[int] = field(default_factory=Counter)
    repeated_bos: int = 0
    merged: int = 0
    untrained_turns: int = 0
    split_conversations: int = 0
    lost_rows: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    longest: dict[str, int] = field(default_factory=lambda: {"prompt": 0, "answer": 0})
    without_stop: list[str] = field(default_factory=list)
    examples: int = 0
    sequences: int = 0
    blank: int = 0
    first: str = ""
    invalid: Counter[str] = field(default_factory=Counter)
    parts_dropped: Counter[str] = field(default_factory=Counter)
    trimmed_parts: Counter[str] = field(default_factory=Counter)
    over: Counter[str] = field(default_factory=Counter)
    files: list[Path] = field(default_factory=list)
    control_rows: int = 0
    control_tokens: Counter[str] = field(default_factory=Counter)
    ignored_rows: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    read_as: list[str] = field(default_factory=list)

    def drop(self, place: str, name: str, reason: str, why: str, kind: str = "") -> None:
        """Count and list a dropped row.

        Args:
            place: Its place.
            name: The field.
            reason: The full reason.
            why: The short reason that is counted.
            kind: Of an invalid row, that of its fault.
        """
        self.dropped[why] += 1
        if why == "invalid":
            self.invalid[kind] += 1
        self.first = self.first or f"{place}: {name}: {reason}"
        self.note(place, name, reason, "drop")

    def tell(self, line: str) -> None:
        """Keep a line about how a file is read."""
        self.read_as.append(line)

    def note(self, place: str, name: str, reason: str, action: str) -> None:
        """List a row for ``rejected.jsonl``."""
        self.rejected.append({"place": place, "field": name, "reason": reason, "action": action})

    def ignore(self, names: Collection[str]) -> None:
        """Count the fields of a row that its data set did not read."""
        self.ignored_rows += bool(names)
        self.ignored.update(names)

    def leave_out(self, names: Collection[str]) -> None:
        """Count what the prompt template does not write of a kept row."""
        self.left_out.update(names)

    def trim(self, place: str, parts: Sequence[str], cut: bool, prompt: int, answer: int, budgets: Truncation) -> None:
        """Count and list what was truncated of a kept row: parts of its prompt, and the end of its answer."""
        self.trimmed += bool(parts)
        self.trimmed_parts.update(parts)
        for part in parts:
            why = f"the prompt has {prompt} tokens, data.max_prompt_tokens is {budgets.max_prompt}"
            self.note(place, part, why, "trim")
        if cut:
            why = f"the answer has {answer} tokens, data.max_answer_tokens is {budgets.max_answer}; it trains no stop token"
            self.note(place, "answer", why, "cut")

    def add(self, other: "RowCounts") -> None:
        """Add the counts of other rows."""
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            if isinstance(mine, Counter | list):
                mine += theirs
            elif isinstance(mine, int):
                setattr(self, entry.name, mine + theirs)
        self.first = self.first or other.first
        self.longest = {part: max(n, other.longest[part]) for part, n in self.longest.items()}

    def save(self, folder: Path) -> None:
        """Write the counts to a folder; listed rows go to ``rejected.jsonl``."""
        self.write_rejected(folder / "rejected.jsonl")
        counts = {
            entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in ("rejected", "files")
        }
        counts["bos_per_row"] = list(self.bos_per_row.items())
        (folder / "row_counts.json").write_text(json.dumps(counts, ensure_ascii=True), encoding="utf-8")

    def add_saved(self, folder: Path) -> None:
        """Add the counts that ``save`` has written; the listed rows stay in their file."""
        counts = json.loads((folder / "row_counts.json").read_text(encoding="utf-8"))
        counts["bos_per_row"] = dict(counts["bos_per_row"])
        other = RowCounts("", None)
        for name, value in counts.items():
            kind = type(getattr(other, name))
            setattr(other, name, Counter(value) if kind is Counter else value)
        self.add(other)
        if (folder / "rejected.jsonl").exists():
            self.files.append(folder / "rejected.jsonl")

    def count_controls(self, texts: Iterable[str], controls: Sequence[str]) -> None:
        """Count the control tokens in the texts of a kept row (they are encoded as text)."""
        text = "\0".join(texts)
        found = {token: text.count(token) for token in controls if token in text}
        self.control_tokens.update(found)
        self.control_rows += bool(found)

    def count(self, rows: Sequence[EncodedExample], bos_id: int | None, stop_ids: Sequence[int]) -> None:
        """Count what encoding did to kept rows."""
        self.sequences += len(rows)
        for row in rows:
            prompt = row.input_ids[: row.prompt_length]
            self.supervised_tokens += row.supervised
            bos = prompt.count(bos_id) if bos_id is not None else 0
            self.bos_per_row[bos] += 1
            self.repeated_bos += bos_id is not None and bos > 1 and _neighbours(prompt, bos_id)
            self.cut += row.cut
            self.merged += row.merged
            self.untrained_turns += row.untrained_turns
            self.lost_rows += bool(row.lost)
            self.lost.update(row.lost)
            self.longest["prompt"] = max(self.longest["prompt"], len(prompt))
            self.longest["answer"] = max(self.longest["answer"], row.answer_length)
            if not (row.cut or row.stops_once(stop_ids)):
                self.without_stop.append(row.place)

    def summary(self) -> dict[str, Any]:
        """The counts as JSON."""
        lost = {"rows": self.lost_rows, "characters": self.lost.total(), "which": dict(self.lost.most_common(SHOWN))}
        return {
            "source": self.source,
            "read_as": self.read_as,
            "sha256": self.sha256,
            "rows": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "invalid": dict(self.invalid.most_common()),
            "unused": self.unused,
            "sequences": self.sequences,
            "blank": self.blank,
            "dropped_turns": dict(self.parts_dropped),
            "truncated": {"prompt": self.trimmed, "answer": self.cut},
            "trimmed_parts": dict(self.trimmed_parts),
            "over_budget": {part: self.over[part] for part in ("prompt", "answer")},
            "supervised_tokens": self.supervised_tokens,
            "bos_per_row": {str(count): rows for count, rows in sorted(self.bos_per_row.items())},
            "repeated_bos": self.repeated_bos,
            "merged_boundaries": self.merged,
            "untrained_turns": self.untrained_turns,
            "split_conversations": self.split_conversations,
            "lost_characters": lost,
            "without_stop_token": len(self.without_stop),
            "ignored_fields": {"rows": self.ignored_rows, "fields": dict(self.ignored.most_common())},
            "left_out_by_template": dict(self.left_out),
            "control_tokens_in_text": {"rows": self.control_rows, "tokens": dict(self.control_tokens)},
            "longest": {part: {"tokens": n, "budget": self.budgets.get(part)} for part, n in self.longest.items()},
        }

    def lines(self) -> list[str]:
        """The counts as lines of text; a warning line only if its count is not 0."""
        dropped = ", ".join(f"{count} {why}" for why, count in self.dropped.items())
        longest = ", ".join(f"{part} {n} of {self.budgets.get(part)}" for part, n in self.longest.items())
        lines = [
            f"{self.source}: {self.read} rows read, {self.kept} kept, {self.dropped.total()} dropped"
            + (f" ({dropped})" if dropped else "")
            + f"; {self.supervised_tokens:,} supervised tokens; longest in tokens: {longest}"
        ]
        lines += [
            *self.read_as[:SHOWN],
            *([f"and {len(self.read_as) - SHOWN} more"] if len(self.read_as) > SHOWN else []),
        ]
        if self.invalid:
            lines.append(f"{self.shares()}; the first is {self.first.partition(': ')[0]}")
        if self.ignored:
            names = [name for name, _ in self.ignored.most_common(SHOWN)]
            rest = f" and {len(self.ignored) - SHOWN} more" if len(self.ignored) > SHOWN else ""
            lines.append(f"ignored fields: {', '.join(names)}{rest} (in {self.ignored_rows:,} rows)")
        if self.left_out:
            names = ", ".join(f"{name} of {count:,} rows" for name, count in self.left_out.items())
            keep = "; data.reasoning=keep trains reasoning" if "reasoning" in self.left_out else ""
            lines.append(f"not in the prompt template, so not trained on: {names}{keep}")
        if over := ", ".join(
            f"{n:,} {part}{'s' * (n != 1)}" for part, n in sorted(self.over.items(), reverse=True) if n
        ):
            lines.append(
                f"over the budget: {over}, of {self.examples:,} rows; data.too_long decides what happens to them"
            )
        if self.unused:
            lines.append(f"{self.unused} kept rows are in no split (data.split adds up to less than 1)")
        if self.trimmed or self.cut:
            lines.append(
                f"trimmed to the budget: {self.trimmed} prompts{_of(self.trimmed_parts)}, "
                f"{self.cut} answers (these train no stop token); rejected.jsonl lists them"
            )
        if self.parts_dropped:
            lines.append(f"{self.parts_dropped.total()} turns of conversations are dropped{_of(self.parts_dropped)}")
        if self.merged:
            lines.append(
                f"{self.merged} rows: tokens would merge across prompt and answer; their answers were encoded separately"
            )
        if self.split_conversations:
            lines.append(
                f"{self.split_conversations} conversations: one example per assistant turn, because the template or the"
                " tokenizer writes a turn otherwise when it is the last"
            )
        if self.untrained_turns:
            lines.append(
                f"{self.untrained_turns} earlier assistant turns are not trained: the prompt does not hold them token for token"
            )
        if self.lost:
            which = ", ".join(f"{_name(char)} {count}" for char, count in self.lost.most_common(SHOWN))
            rest = ", ..." if len(self.lost) > SHOWN else ""
            lines.append(
                f"{self.lost_rows} rows: the tokenizer cannot represent {self.lost.total()} characters ({which}{rest})"
            )
        if self.control_rows:
            which = ", ".join(f"{token} {count}" for token, count in self.control_tokens.most_common(SHOWN))
            lines.append(f"{self.control_rows} rows: control tokens in their text stay text ({which})")
        if self.repeated_bos:
            lines.append(
                f"{self.repeated_bos} rows: more than one BOS in a row; take bos_token out of the prompt's template"
                " (the tokenizer adds its own)"
            )
        return lines

    def shares(self) -> str:
        """How many rows were dropped, and why: ``4 of 5 rows dropped: q: must not be blank (3), label false (1)``."""
        reasons = Counter({why: count for why, count in self.dropped.items() if why != "invalid"}) + self.invalid
        listed = [f"{reason} ({count:,})" for reason, count in reasons.most_common(SHOWN)]
        more = [f"{len(reasons) - SHOWN} other reasons"] if len(reasons) > SHOWN else []
        return f"{self.dropped.total():,} of {self.read:,} rows dropped: {', '.join([*listed, *more])}"

    def faults(self) -> list[str]:
        """Errors that no option allows: rows that do not train their stop token."""
        if not self.without_stop:
            return []
        return [
            f"{len(self.without_stop)} rows do not train exactly one stop token, at the end of their answer"
            f" (first: {self.without_stop[0]}); look at the end of the prompt's template and at the tokenizer's eos_token"
        ]

    def write_rejected(self, file: Path) -> None:
        """``rejected.jsonl``: place, field, reason and action (``drop``, ``trim``, ``cut``) of every affected row."""
        if not (self.rejected or self.files):
            return
        # the text of a row may contain half of a surrogate pair, which is escaped
        with file.open("w", encoding="utf-8", errors="backslashreplace") as handle:
            for part in self.files:
                with part.open(encoding="utf-8") as lines:
                    shutil.copyfileobj(lines, handle)
            handle.writelines(json_line(row) + "\n" for row in self.rejected)


def _neighbours(ids: list[int], wanted: int) -> bool:
    """Whether an id occurs twice in succession (list methods find it faster than a loop over all ids)."""
    last = ids.index(wanted)
    for _ in range(ids.count(wanted) - 1):
        position = ids.index(wanted, last + 1)
        if position == last + 1:
            return True
        last = position
    return False


def _of(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""


def _name(char: str) -> str:
    if char in NAMES:
        return NAMES[char]
    return char if char.isprintable() and char.strip() else unicodedata.name(char, f"U+{ord(char):04X}").lower()
