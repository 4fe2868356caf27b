"""Statistics of the rows of each split: lengths, duplicates, and prompts that are in train and elsewhere (leakage)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmft.data.preprocessing.arrow_store import RowColumns
from llmft.data.preprocessing.leakage import leaks
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.utils.console import Console

LENGTHS = ("prompt_tokens", "answer_tokens", "prompt_characters", "answer_characters")
COUNTS = {
    "duplicates": "repeat another row",
    "near_duplicates": "repeat another row except for case and white space",
    "other_answers": "have a prompt that also has another answer",
    "leaked": "have a prompt that is in train too",
    "near_leaked": "have a prompt that is in train too, except for case and white space",
    "similar": "have a prompt that is nearly one in train",
    "odd_characters": "hold unprintable characters",
    "lost_characters": "lose characters in this tokenizer",
}
# Findings that include another one, and are said if there are more of them.
INCLUDES = {"near_duplicates": "duplicates", "near_leaked": "leaked", "similar": "near_leaked"}
HINTS = {
    "leaked": " (data.leakage=drop drops such rows)",
    "similar": " (data.near_duplicates=drop drops such rows)",
}
BINS, BAR = 12, 12  # bars of both parts fit into 80 columns


@dataclass(frozen=True)
class Audit:
    """Numbers of each split, and lengths to draw.

    Attributes:
        splits: For each split ``rows``, of each length ``median``, ``p95`` and ``max``, the ``over`` shares, and counts of rows.
        lengths: Tokens of prompts and answers of all splits, before any cut.
        budgets: The max tokens of both.
        too_long: How many rows were dropped because of each; they are in no split.
    """

    splits: dict[str, dict[str, Any]]
    lengths: dict[str, np.ndarray]
    budgets: dict[str, int]
    too_long: dict[str, int]

    @classmethod
    def of(
        cls,
        columns: RowColumns,
        indices: Mapping[str, np.ndarray],
        counts: RowCounts,
        nearly: Mapping[str, np.ndarray] | None = None,
    ) -> "Audit":
        """Compute the statistics of every split; one column is in memory at a time.

        Args:
            columns: Of all rows.
            indices: The row numbers of each split.
            counts: What was dropped.
            nearly: The rows of each split but train whose prompt is nearly one in train; None if they were not searched.
        """
        budgets = counts.budgets
        splits: dict[str, dict[str, Any]] = {name: {"rows": len(rows)} for name, rows in indices.items()}
        lengths: dict[str, np.ndarray] = {}
        for name in LENGTHS:
            column = columns[name]
            for split, rows in indices.items():
                splits[split][name] = summary(column[rows])
            part = name.removesuffix("_tokens")
            if part in budgets:
                lengths[part] = column[np.concatenate(list(indices.values()))]
                for split, rows in indices.items():
                    splits[split][f"over_{part}"] = float((column[rows] > budgets[part]).mean()) if len(rows) else 0.0
        prompts, whole = columns["prompt"], columns["row"]
        for split, rows in indices.items():
            splits[split]["duplicates"] = repeated(whole[rows])
            splits[split]["other_answers"] = ambiguous(prompts[rows], whole[rows])
        for split, rows in leaks(prompts, indices).items():
            splits[split]["leaked"] = len(rows)
        del prompts, whole
        for name, key in (("row_like", "near_duplicates"), ("odd", "odd_characters"), ("lost", "lost_characters")):
            column = columns[name]
            for split, rows in indices.items():
                splits[split][key] = repeated(column[rows]) if key == "near_duplicates" else int(column[rows].sum())
        for split, rows in leaks(columns["prompt_like"], indices).items():
            splits[split]["near_leaked"] = len(rows)
            if nearly is not None:
                splits[split]["similar"] = len(np.union1d(rows, nearly[split]))
        return cls(splits, lengths, budgets, {part: counts.dropped[f"{part} too long"] for part in budgets})

    def lines(self) -> list[str]:
        """A line for each finding; none where there are no such rows."""
        found = []
        for split, numbers in self.splits.items():
            for key, words in COUNTS.items():
                exact = numbers.get(INCLUDES.get(key, ""), 0)
                if numbers.get(key, 0) > exact and key != "lost_characters":
                    found.append(f"{split}: {numbers[key]:,} of {numbers['rows']:,} rows {words}{HINTS.get(key, '')}")
        return found

    def table(self, *, brief: bool = False) -> Table:
        """The numbers as a table with a column for each split, without counts that are 0 everywhere; ``notes`` has those.

        Args:
            brief: Only the number of rows and their tokens; ``lines`` has the counts that are not 0.
        """
        splits = {name: numbers for name, numbers in self.splits.items() if numbers["rows"]}
        table = Table("", *splits, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("rows", *(f"{numbers['rows']:,}" for numbers in splits.values()))
        for name in LENGTHS[:2] if brief else LENGTHS:
            cells = (f"{n[name]['median']:,}/{n[name]['p95']:,}/{n[name]['max']:,}" for n in splits.values())
            table.add_row(f"{name.replace('_', ' ')}: median/95 %/max", *cells)  # fits into 80 columns
        for part, budget in self.budgets.items():
            if any(over := [n[f"over_{part}"] for n in splits.values()]):  # a row that is dropped is in no split
                table.add_row(f"{part} was over {budget} tokens and is trimmed", *(f"{share:.1%}" for share in over))
        for key, words in () if brief else COUNTS.items():
            if any(numbers.get(key) for numbers in splits.values()):
                table.add_row(f"rows that {words}", *(f"{n[key]:,}" if key in n else "-" for n in splits.values()))
        return table

    def notes(self) -> list[str]:
        """What goes below the table: rows in no split, and counts that are 0, such as ``no rows: duplicates, leaked``."""
        return [line for line in (self._dropped(), self._not_found()) if line]

    def _not_found(self) -> str:
        searched = {key: [n[key] for n in self.splits.values() if key in n] for key in COUNTS}
        absent = [key.replace("_", " ") for key, counts in searched.items() if counts and not any(counts)]
        return f"no rows: {', '.join(absent)}" if absent else ""

    def _dropped(self) -> str | None:
        """How many rows are in none of the splits because they were too long."""
        found = (
            f"{n:,} with {_article(part)} over {self.budgets[part]:,} tokens" for part, n in self.too_long.items() if n
        )
        return f"dropped, in no split: {listed}" if (listed := ", ".join(found)) else None

    def histogram(self) -> Table:
        """Histogram of the lengths of prompts and answers; bars over the budget are red."""
        table = Table(
            title="tokens before truncation", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False
        )
        for part, lengths in self.lengths.items():
            table.add_column(part, justify="right")
            table.add_column("rows", justify="right")
            table.add_column("")
            del lengths
        columns = [bars(lengths, self.budgets[part]) for part, lengths in self.lengths.items()]
        empty = (Text(""), Text(""), Text(""))
        for number in range(max(map(len, columns), default=0)):
            table.add_row(*(cell for column in columns for cell in (column[number] if number < len(column) else empty)))
        return table

    def summary(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return self.splits


def summary(values: np.ndarray) -> dict[str, int]:
    """Median, 95th percentile (inverted CDF, no interpolation) and maximum; zeros if there are no values."""
    if not len(values):
        return {"median": 0, "p95": 0, "max": 0}
    middle, high = np.quantile(values, [0.5, 0.95], method="inverted_cdf")
    return {"median": int(middle), "p95": int(high), "max": int(values.max())}


def repeated(values: np.ndarray) -> int:
    """Number of duplicates: all occurrences of a value but the first."""
    ordered = np.sort(values)  # np.unique would count with a hash table, ten times slower and larger
    return int((ordered[1:] == ordered[:-1]).sum())


def ambiguous(prompts: np.ndarray, rows: np.ndarray) -> int:
    """Number of rows whose prompt occurs with different answers."""
    if not len(prompts):
        return 0
    order = np.argsort(prompts, kind="stable")
    prompts, rows = prompts[order], rows[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(prompts)) + 1])
    several = np.minimum.reduceat(rows, starts) != np.maximum.reduceat(rows, starts)
    return int(np.diff(np.append(starts, len(rows)))[several].sum())


def bars(lengths: np.ndarray, budget: int) -> list[tuple[Text, Text, Text]]:
    """Range of lengths, number of rows, and a bar, for bins with round edges."""
    if not len(lengths):
        return []
    top = int(np.quantile(lengths, 0.99, method="inverted_cdf"))
    step = next(size for power in range(12) for size in (10**power, 2 * 10**power, 5 * 10**power) if size * BINS >= top)
    counts = np.bincount(np.minimum(lengths // step, BINS))
    most = counts.max()
    made = []
    for number, count in enumerate(counts):
        if not counts[: number + 1].any():  # none of the rows is that short
            continue
        style = "red" if number * step >= budget else ""
        label = f"{number * step:,} to {(number + 1) * step - 1:,}" if number < BINS else f"{BINS * step:,} and more"
        made.append(
            (Text(label), Text(f"{count:,}"), Text("█" * round(BAR * count / most) or "▏" * bool(count), style))
        )
    return made


def _article(part: str) -> str:
    return f"an {part}" if part[0] in "aeiou" else f"a {part}"


def show_audit(audit: Audit | None, *, brief: bool = False) -> None:
    """Print the statistics and, unless ``brief``, the histogram (a stream has no audit)."""
    if audit:
        console = Console(highlight=False)
        console.print(audit.table(brief=brief))
        for line in audit.notes():
            console.print(Text(line, style="dim"), soft_wrap=True)
        if not brief:
            console.print(audit.histogram())
