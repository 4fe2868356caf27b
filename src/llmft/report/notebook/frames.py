"""``metrics.csv``, ``steps.csv`` and ``predictions.jsonl`` of a run as pandas data frames."""

from pathlib import Path

import pandas as pd

from llmft.report.curves import read_run
from llmft.runs import read


def metrics(run: Path) -> pd.DataFrame:
    """One row an optimizer step, one column a metric; NaN where a metric was not logged, or not finite.

    Args:
        run: The run directory.

    Returns:
        Index ``step``, first column ``epoch`` (completed epochs). Loss and learning rate are of every step (``steps.csv``),
        the others of the logged ones (``metrics.csv``).

    Raises:
        UserError: One of the files cannot be read.
    """
    found = read_run(run)
    epochs = {step: epoch for series in found.values() for step, epoch in zip(series.steps, series.epochs, strict=True)}
    columns = {"epoch": pd.Series(epochs, dtype=float)}
    columns |= {name: pd.Series(series.values, series.steps, dtype=float) for name, series in found.items()}
    frame = pd.DataFrame(columns).sort_index()
    return frame.set_axis(pd.Index(frame.index, dtype="int64", name="step"))


def predictions(run: Path) -> pd.DataFrame:
    """One row a scored example, in order of ``predictions.jsonl``; empty if nothing was scored.

    Args:
        run: The run directory.

    Returns:
        Its fields as columns, such as ``question``, ``reference``, ``answer``, ``base_answer``; the scores of an answer as
        ``scores.chrf``, those of the base model's as ``base_scores.chrf``.
    """
    return pd.json_normalize([row for row in read.load(run)["predictions"] if isinstance(row, dict)])
