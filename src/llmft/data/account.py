"""What became of the rows: read, kept, dropped and why, trimmed, and what the tokenizer did to them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.encoding import Encoded


@dataclass
class Account:
    """Counts over one data set; goes to the terminal, ``run.json`` and ``rejected.jsonl``."""

    source: str
    sha256: str | None
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)
    trimmed: int = 0
    cut: int = 0
    kept: int = 0
    unused: int = 0
    supervised_tokens: int = 0
    bos_per_row: Counter[int] = field(default_factory=Counter)
    merged: int = 0
    untrained_turns: int = 0
    lost_rows: int = 0
    lost_characters: int = 0

    def drop(self, place: str, name: str, reason: str, why: str) -> None:
        """Leave a row out: ``why`` is the short reason that is counted, ``reason`` the whole one."""
        self.dropped[why] += 1
        self.rejected.append({"place": place, "field": name, "reason": reason})

    def count(self, rows: Sequence[Encoded], bos_id: int | None) -> None:
        """Add what encoding did to the rows that are kept."""
        self.kept += len(rows)
        for row in rows:
            self.supervised_tokens += row.supervised
            self.bos_per_row[row.input_ids[: row.prompt_length].count(bos_id) if bos_id is not None else 0] += 1
            self.cut += row.cut
            self.merged += row.merged
            self.untrained_turns += row.untrained_turns
            self.lost_rows += row.lost > 0
            self.lost_characters += row.lost

    def summary(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "rows": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "unused": self.unused,
            "truncated": {"prompt": self.trimmed, "answer": self.cut},
            "supervised_tokens": self.supervised_tokens,
            "bos_per_row": {str(count): rows for count, rows in sorted(self.bos_per_row.items())},
            "merged_boundaries": self.merged,
            "untrained_turns": self.untrained_turns,
            "lost_characters": {"rows": self.lost_rows, "characters": self.lost_characters},
        }

    def lines(self) -> list[str]:
        """The counts for people; a line about trouble only where there was some."""
        dropped = ", ".join(f"{count} {why}" for why, count in self.dropped.items())
        lines = [
            f"{self.source}: {self.read} rows read, {self.kept} kept, {self.dropped.total()} dropped"
            + (f" ({dropped})" if dropped else "")
            + f"; {self.supervised_tokens:,} supervised tokens"
        ]
        if self.unused:
            lines.append(f"{self.unused} kept rows are in no split (data.split adds up to less than 1)")
        if self.trimmed or self.cut:
            lines.append(
                f"trimmed to the budget: {self.trimmed} prompts, {self.cut} answers (these train no stop token)"
            )
        if self.merged:
            lines.append(
                f"{self.merged} rows: tokens would merge across prompt and answer; their answers were encoded alone"
            )
        if self.untrained_turns:
            lines.append(
                f"{self.untrained_turns} earlier assistant turns are not trained: the prompt does not hold them token for token"
            )
        if self.lost_rows:
            lines.append(
                f"{self.lost_rows} rows: the tokenizer loses {self.lost_characters} characters"
                " (T5 knows no newline, tab, brace or backslash)"
            )
        return lines

    def write_rejected(self, file: Path) -> None:
        """``rejected.jsonl``: place, field and reason of every dropped row; no file where none was dropped."""
        if self.rejected:
            file.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rejected), encoding="utf-8"
            )
