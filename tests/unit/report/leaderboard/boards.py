"""Runs of a leaderboard, without their folders."""

from llmft.metrics.verdict.verdict import Verdict
from llmft.report.leaderboard.ranking import Group
from llmft.report.leaderboard.runs import BoardRun

DEFAULTS = {
    "status": "finished", "reason": "", "settings": {}, "typed": frozenset(), "overrides": (), "monitor": "val/loss", "before": None,
    "objective": None, "seed": 1, "test": {}, "trainable": None, "speed": None, "memory": None, "seconds": None, "predictions": (),
    "split": "test", "validation": {}, "data": {}, "curve": None, "verdict": Verdict("amber", ""), "has_report": False,
}  # fmt: skip


def run(name="r", **values):
    """A run with the defaults of one that knows nothing."""
    return BoardRun(**{"name": name, **DEFAULTS, **values})


def group(name, **values):
    """A group of one run."""
    return Group([run(name, **values)], name)


def rows(texts, nats, tokens):
    """Predictions of some references, each with these nats over this many tokens."""
    return [
        {"identity": text, "reference": text, "answer": text, "nats": n, "supervised": t}
        for text, n, t in zip(texts, nats, tokens, strict=True)
    ]
