"""What keeps a verdict from being green: rows, split, leaks, row counts, and what else was found."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmft.metrics.verdict.scores import clean_entry, corrected, leading_score, retention_of

# Below this the percentile interval is too narrow: simulated, it covers the mean in 92 (skewed) to 94 % of cases with 30
# rows, in 87 to 89 % with 12, in 81 to 86 % with 6.
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
    yield from _leaks(evaluation, entry)
    if (rows := evaluation.get("rows") or 0) < FEW_ROWS:
        yield f"{rows} row{'s' * (rows != 1)}, fewer than {FEW_ROWS}"
    if worse := [name for name, better in corrected(evaluation).items() if better is False]:
        yield f"significantly worse on {', '.join(worse)}"
    if _differs_by_seed(evaluation, entry):
        yield "not better for every seed"
    yield from common_reservations(evaluation, record)


def common_reservations(evaluation: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Those that do not depend on the scores: row counts, retention, the training's arithmetic."""
    if evaluation.get("split") not in ("given", "stored"):
        yield from count_faults(record.get("data") or {}, streamed="stream" in record)
    if retention_of(evaluation, record).get("flagged"):
        yield "it forgot (retention)"
    if (record.get("prove") or {}).get("agrees") is False:
        yield "the referee computes another training"


def _leaks(evaluation: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    """Rows whose prompt is in train too, or may be."""
    if evaluation.get("split") == "train":  # said already
        return
    clean = evaluation.get("clean") or {"unknown": evaluation.get("rows")}
    if leaked := clean.get("in_train"):
        yield f"{leaked:,} of {evaluation['rows']:,} prompts are in train too (exactly or nearly)"
        survives = (clean_entry(evaluation) or {}).get("verdict") == "better"
        if clean.get("rows") and entry.get("verdict") == "better" and not survives:
            yield "no significant improvement on the other rows alone"
    if clean.get("unknown"):
        yield "not known whether the prompts are in train"


def _differs_by_seed(evaluation: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether the tuned model is better than its base for the first of several seeds, but not for each of them."""
    values = (((evaluation.get("seeds") or {}).get("scores") or {}).get(leading_score(evaluation)) or {}).get("values")
    if not values or entry.get("verdict") != "better":
        return False
    sign = 1 if entry["better"] == "higher" else -1
    return any(value is None or sign * (value - entry["base"]) <= 0 for value in values)


def count_faults(data: Mapping[str, Any], *, streamed: bool = False) -> Iterator[str]:
    """Row counts of ``run.json`` that do not add up.

    Args:
        data: ``rows`` (read), ``kept``, ``dropped`` by reason, ``unused`` (kept rows in no split), and ``audit`` with the
            rows of each split. A kept conversation may be several ``sequences``.
        streamed: Of a stream only the first rows are counted.
    """
    read, kept = data.get("rows"), data.get("kept")
    if streamed or not (isinstance(read, int) and isinstance(kept, int)):
        return
    dropped = data.get("dropped") or {}
    if read != kept + sum(dropped.values()):
        yield f"row counts do not add up: {read:,} read, {kept:,} kept, {sum(dropped.values()):,} dropped"
    sizes = {name: part.get("rows") for name, part in (data.get("audit") or {}).items()}
    total = sum(sizes.values()) if sizes and all(isinstance(size, int) for size in sizes.values()) else None
    # examples whose prompt is in train were dropped after they had been encoded
    leaked = sum(count for why, count in dropped.items() if why.startswith("in train and "))
    expected = kept - (data.get("unused") or 0)
    one_each = data.get("sequences") == kept + leaked
    if total is not None and (total < expected or (one_each and total != expected)):
        parts = " + ".join(f"{size:,} {name}" for name, size in sizes.items())
        yield f"row counts do not add up: {expected:,} kept, but {parts}"
