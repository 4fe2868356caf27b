"""One row per logged step, to ``metrics.csv`` and every logger: all ``train/`` and ``val/`` values of that step."""

import csv
import logging
from typing import Any

import lightning.pytorch as pl

from llmft.runs.directory import RunDirectory
from llmft.utils.csv import cell
from llmft.utils.files import atomic_open, complete_lines
from llmft.utils.text import first_line

log = logging.getLogger(__name__)

FIRST = ["step", "epoch", "train/loss", "train/lr", "train/grad_norm", "train/tokens", "val/loss", "val/perplexity"]


class MetricsLog(pl.Callback):
    """Write the values that the module and the other callbacks logged; the last of the callbacks.

    The row of a step is kept until the next step, so that a validation at the same step is added to it. Rows are written for
    the first and the last step, every ``trainer.log_every_n_steps``-th step and every step with a validation.

    Args:
        run: The run directory; rows are appended to its ``metrics.csv``.
    """

    def __init__(self, *, run: RunDirectory) -> None:
        self.file = run.path / "metrics.csv"
        self.row: dict[str, float] = {}
        self.due = False
        self.columns: list[str] = []
        self.last_step = -1
        self.resumed = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remove the rows that an interrupted run wrote after the checkpoint that is now resumed."""
        if self.resumed and not trainer.global_rank:
            self._write([row for row in self._read() if int(row["step"]) <= self.last_step])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start the row of a finished optimizer step; write the previous one if it is due."""
        step = trainer.global_step
        if step in (0, self.row.get("step")):  # 0: in the first window, before its step
            return
        self._write_if_due(trainer)
        self.row = {"step": step, "epoch": trainer.current_epoch, **_values(trainer, "train/")}
        self.due = step == 1 or step % trainer.log_every_n_steps == 0  # pyright: ignore[reportAttributeAccessIssue]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the validation metrics to the row of their step."""
        if trainer.sanity_checking:
            return
        if self.row.get("step") != trainer.global_step:
            self._write_if_due(trainer)
            self.row = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        self.row |= _values(trainer, "val/")
        self.due = True
        if trainer.state.fn != "fit":
            self._write_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the last step."""
        self.due = bool(self.row)
        self._write_if_due(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write the last row, if that is possible."""
        try:
            self.on_train_end(trainer, pl_module)
        except Exception as error:  # loggers can raise anything, and it must not hide the exception that ended the run
            log.warning(
                "metrics: the last step could not be written (%s)", f"{type(error).__name__}: {first_line(error)}"
            )

    def add(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        """Add values that were computed after the training to the last row."""
        self.row |= values
        self.due = "step" in self.row
        self._write_if_due(trainer)

    def _write_if_due(self, trainer: pl.Trainer) -> None:
        if not self.due or trainer.global_rank:
            return
        self.due = False
        step = int(self.row["step"])
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in self.row.items() if "/" in k}, step=step)
        self._append(step)

    def _append(self, step: int) -> None:
        if step != self.last_step and set(self.row) <= set(self.columns):
            with self.file.open("a", newline="", encoding="utf-8") as out:
                csv.DictWriter(out, self.columns).writerow(_safe(self.row))
        else:  # the first row, new columns, or values to add to the last row (a validation after the last step)
            rows = self._read()
            rows = rows[:-1] if step == self.last_step else rows
            self.columns = list(dict.fromkeys([*(self.columns or FIRST), *self.row]))
            self._write([*rows, self.row])
        self.last_step = step

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with atomic_open(self.file, newline="") as out:
            writer = csv.DictWriter(out, self.columns or FIRST, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(_safe, rows))

    def state_dict(self) -> dict[str, Any]:
        """The row that is not written yet, the columns, and the last step in the file."""
        return {name: getattr(self, name) for name in ("row", "due", "columns", "last_step")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the pending row."""
        vars(self).update(state_dict)
        self.resumed = True

    def _read(self) -> list[dict[str, Any]]:
        return list(csv.DictReader(complete_lines(self.file)))


def _safe(row: dict[str, Any]) -> dict[str, str]:
    """Cells that a spreadsheet does not evaluate: the rows of a downloaded run may hold formulas."""
    return {name: cell(value) for name, value in row.items()}


def _values(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
