"""The data of a run on its report: row counts, findings of the audit, and all numbers of the audit."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmft.data.preprocessing.audit import COUNTS, INCLUDES, LENGTHS
from llmft.data.preprocessing.text_notes import note_line

# Findings that change what the scores mean; the others are amber from this share of a split's rows.
LEAKS = ("leaked", "near_leaked", "similar")
MANY = 0.01


def row_counts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Row counts of the data set: read, kept, dropped by reason, split, truncated."""
    found = [
        ("source", data.get("source")),
        ("SHA-256", data.get("sha256")),
        ("rows read", data.get("rows")),
        ("kept", data.get("kept")),
    ]
    found += [(f"dropped: {why}", count) for why, count in (data.get("dropped") or {}).items()]
    found += [(f"{name} rows", count) for name, count in (data.get("split") or {}).items()]
    found += [(f"{name}s trimmed", count) for name, count in (data.get("truncated") or {}).items() if count]
    found += [("supervised tokens", data.get("supervised_tokens"))]
    lost = data.get("lost_characters") or {}
    found += [("rows that the tokenizer cannot reproduce exactly", lost["rows"])] if lost.get("rows") else []
    return [(name, f"{v:,}" if isinstance(v, int) else str(v)) for name, v in found if v is not None]


def findings(data: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What is worth knowing of the data, each with whether it matters: leaks, cut rows, and what concerns many rows."""
    found = [*_cut(data)]
    found += [(note_line(note), note["rows"] >= MANY * note["of"]) for note in data.get("text_notes") or []]
    for split, numbers in (data.get("audit") or {}).items():
        for key, words in COUNTS.items():
            exact = numbers.get(INCLUDES.get(key, ""), 0)
            if (count := numbers.get(key) or 0) > exact:
                matters = key in LEAKS or count >= MANY * numbers["rows"]
                found.append((f"{split}: {count:,} of {numbers['rows']:,} rows {words}", matters))
    return sorted(found, key=lambda finding: not finding[1])


def _cut(data: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    kept = data.get("kept") or 0
    for part, count in (data.get("truncated") or {}).items():
        if count:
            yield f"{count:,} of {kept:,} {part}s were longer than their max tokens and are trimmed", True
    if rows := sum((data.get("dropped") or {}).values()):
        yield f"{rows:,} of {data.get('rows') or 0:,} rows were dropped (rejected.jsonl)", rows >= MANY * (kept + rows)


def audit_table(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """All numbers of the audit, a column for each split with rows; the first row is the header."""
    splits = {name: numbers for name, numbers in (data.get("audit") or {}).items() if numbers.get("rows")}
    if not splits:
        return []
    found: list[tuple[str, ...]] = [("", *splits), ("rows", *(f"{n['rows']:,}" for n in splits.values()))]
    for name in LENGTHS:
        cells = [n.get(name) for n in splits.values()]
        shown = (f"{c['median']:,} / {c['p95']:,} / {c['max']:,}" if isinstance(c, Mapping) else "-" for c in cells)
        found.append((f"{name.replace('_', ' ')}: median / 95 % / max", *shown))
    for part in ("prompt", "answer"):
        shares = [n.get(f"over_{part}") for n in splits.values()]
        if any(share is not None for share in shares):
            found.append((f"{part}s over their max tokens", *("-" if s is None else f"{s:.1%}" for s in shares)))
    for key, words in COUNTS.items():
        if any(key in numbers for numbers in splits.values()):
            found.append((f"rows that {words}", *(f"{n[key]:,}" if key in n else "-" for n in splits.values())))
    return found
