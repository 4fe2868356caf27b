"""What keeps a verdict from being green: rows, split, leaks, row counts, and what else was found."""

from collections.abc import Iterator, Mapping
from typing import Any

# Below this the percentile interval is too narrow: with 30 rows it covers about 93 % instead of 95 % (docs/evaluation.md).
FEW_ROWS = 30
# What the rows are if they are no test split.
STAND_INS = {
    "val": "no test split: these are validation rows, which selected the checkpoint",
    "train": "no test split: these are training rows, which the model was trained on",
    "stored": "the split of stored answers is not known",
}


def reservations(evaluation: Mapping[str, Any], record: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    """Why the verdict is not green, in short.

    Args:
        evaluation: The content of ``evaluation.json``.
        record: The content of ``run.json``; empty if unknown.
        entry: The leading score in it.
    """
    if "base" not in entry:
        yield "the base model was not evaluated"
    elif entry.get("verdict") is None:
        yield str(entry.get("reason") or "without interval")
    elif entry["verdict"] != "better":
        yield {"worse": "significantly worse"}.get(entry["verdict"], "no significant improvement")
    if stand_in := STAND_INS.get(str(evaluation.get("split"))):
        yield stand_in
    if (rows := evaluation.get("rows") or 0) < FEW_ROWS:
        yield f"{rows} row{'s' * (rows != 1)}, fewer than {FEW_ROWS}"
    if evaluation.get("split") not in ("given", "stored"):
        yield from count_faults(record.get("data") or {}, streamed="stream" in record)
    if (evaluation.get("retention") or {}).get("flagged"):
        yield "it forgot (retention)"
    if (record.get("prove") or {}).get("agrees") is False:
        yield "the referee computes another training"


def count_faults(data: Mapping[str, Any], *, streamed: bool = False) -> Iterator[str]:
    """Row counts of ``run.json`` that do not add up.

    Args:
        data: ``rows`` (read), ``kept``, ``dropped`` by reason, ``unused`` (kept rows in no split), ``audit`` or ``split`` by
            split. A kept conversation may be several ``sequences``.
        streamed: Of a stream only the first rows are counted.
    """
    read, kept = data.get("rows"), data.get("kept")
    if streamed or not (isinstance(read, int) and isinstance(kept, int)):
        return
    dropped = data.get("dropped") or {}
    if read != kept + sum(dropped.values()):
        yield f"row counts do not add up: {read:,} read, {kept:,} kept, {sum(dropped.values()):,} dropped"
