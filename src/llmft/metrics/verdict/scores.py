"""The scores of ``evaluation.json`` that a verdict is made of: the leading one, that of the clean rows, the corrected others."""

from collections.abc import Mapping
from typing import Any

from llmft.metrics.permutation import holm
from llmft.metrics.suites import all_scores
from llmft.metrics.verdict.primary import SAME_AS

# A score that leads where an evaluation of an earlier version names none.
LEADING = ("loss", "chrf")
ALPHA = 0.05


def leading_score(evaluation: Mapping[str, Any]) -> str:
    """The name of the score in the headline."""
    scores = evaluation["scores"]
    named = (evaluation.get("primary") or {}).get("score")
    if named in scores:
        return str(named)
    known = [name for name in (*LEADING, *scores) if name in scores]
    return next((name for name in known if scores[name].get("tuned") is not None), known[0])


def clean_entry(evaluation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The leading score over the rows whose prompt is not in train; None if that is all rows, or none."""
    scores = (evaluation.get("clean") or {}).get("scores")
    return scores.get(leading_score(evaluation)) if scores else None


def retention_of(evaluation: Mapping[str, Any], record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured on general rows; empty if nothing was."""
    return evaluation.get("retention") or record.get("retention") or {}


def corrected(evaluation: Mapping[str, Any]) -> dict[str, bool | None]:
    """Whether each score but the leading one is significantly better; worse: False; neither: None.

    A score differs if its interval excludes 0, and if Holm's procedure on the p-values of the paired permutation test says so.
    Scores of external suites are among them. The leading score was chosen beforehand and is tested alone, as the primary
    endpoint of a trial is.
    """
    leading = leading_score(evaluation)
    same = {leading, *SAME_AS} if leading in SAME_AS.values() else {leading}
    entries = {name: e for name, e in all_scores(evaluation).items() if name not in same and e.get("better")}
    tested = {name: entry for name, entry in entries.items() if isinstance(entry.get("p"), float)}
    adjusted = dict(zip(tested, holm([entry["p"] for entry in tested.values()]), strict=True))
    directions = {"better": True, "worse": False}  # None if its interval includes 0
    return {
        n: directions.get(str(entry.get("verdict"))) if adjusted[n] <= ALPHA else None for n, entry in tested.items()
    }
