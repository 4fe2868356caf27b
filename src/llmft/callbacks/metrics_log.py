"""One row per logged step, to ``metrics.csv`` and every logger; loss and learning rate of every step to ``steps.csv``."""

import csv
import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from llmft.config.metric_names import SCORE_GROUPS
from llmft.runs.directory import RunDirectory
from llmft.utils.csv import cell
from llmft.utils.files import atomic_open, atomic_write, complete_lines
from llmft.utils.tensorboard_events import add_scalars
from llmft.utils.text import first_line

log = logging.getLogger(__name__)

FIRST = ["step", "epoch", "train/loss", "train/lr", "train/grad_norm", "train/tokens", "val/loss", "val/perplexity"]
NO_CURVE = tuple(f"{group}/" for group in SCORE_GROUPS.values())
# Of every step, logged or not; numbers that a step has computed anyway.
EVERY_STEP: tuple[str, ...] = ("train/loss", "train/perplexity", "train/lr", "train/grad_norm")
STEP_COLUMNS: tuple[str, ...] = ("step", "epoch", *EVERY_STEP)
HELD = 1000  # steps kept in memory if neither a row nor a checkpoint is written


class MetricsLog(pl.Callback):
    """Write the values that the module and the other callbacks logged; the last of the callbacks.

    The row of a step is kept until the next step, so that a validation at the same step is added to it. Rows are written for
    the first and the last step, every ``trainer.log_every_n_steps``-th step and every step with a validation. With each row
    and each checkpoint, ``EVERY_STEP`` of the steps so far go to ``steps.csv`` and TensorBoard; other loggers get the rows only.

    Args:
        run: The run directory; rows are appended to its ``metrics.csv`` and ``steps.csv``.
    """

    def __init__(self, *, run: RunDirectory) -> None:
        self.file, self.steps_file = run.path / "metrics.csv", run.path / "steps.csv"
        self.row: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []  # the rows of steps.csv that are not written yet
        self.due = False
        self.columns: list[str] = []
        self.last_step = self.saved_step = -1
        self.resumed = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remove the rows that an interrupted run wrote after the checkpoint that is now resumed."""
        if self.resumed and not trainer.global_rank:
            self._write([row for row in self._read() if int(row["step"]) <= self.last_step])
            lines = complete_lines(self.steps_file) if self.steps_file.exists() else []
            if kept := [line for line in lines[1:] if int(line.partition(",")[0]) <= self.saved_step]:
                atomic_write(self.steps_file, "".join(f"{line}\n" for line in (lines[0], *kept)))
            else:
                self.steps_file.unlink(missing_ok=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start the row of a finished optimizer step; write the previous one if it is due."""
        step = trainer.global_step
        if step in (0, self.row.get("step")):  # 0: in the first window, before its step
            return
        self._write_if_due(trainer)
        self.row = {"step": step, "epoch": trainer.current_epoch, **_values(trainer, "train/")}
        if not trainer.global_rank:
            self.steps.append({name: self.row[name] for name in STEP_COLUMNS if name in self.row})
            if len(self.steps) == HELD:
                self._write_steps(trainer)
        self.due = step == 1 or step % trainer.log_every_n_steps == 0  # pyright: ignore[reportAttributeAccessIssue]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the validation metrics to the row of their step."""
        if trainer.sanity_checking:
            return
        if self.row.get("step") != trainer.global_step:
            self._write_if_due(trainer)
            self.row = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        if trainer.state.fn != "fit":  # before the training, or after its last step, whose row is written
            self.add(trainer, _values(trainer, "val/"))
            return
        self.row |= _values(trainer, "val/")
        self.due = True

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
        """Add values that were computed before or after the training to the row of their step; loggers get these alone."""
        self.row |= values
        if "step" in self.row and not trainer.global_rank:
            self._log(trainer, values)
            self._append(int(self.row["step"]))

    def _write_if_due(self, trainer: pl.Trainer) -> None:
        if not self.due or trainer.global_rank:
            return
        self.due = False
        self._write_steps(trainer)
        self._log(trainer, self.row)
        self._append(int(self.row["step"]))

    def _log(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        """To TensorBoard without the scores of the evaluation, a chart of one point each, which its HParams page has."""
        step, values = int(self.row["step"]), {name: value for name, value in row.items() if "/" in name}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                shown = {k: v for k, v in values.items() if k not in EVERY_STEP and not k.startswith(NO_CURVE)}
                logger.log_metrics(shown, step=step)
            else:
                logger.log_metrics(values, step=step)

    def _write_steps(self, trainer: pl.Trainer) -> None:
        if not self.steps:
            return
        begins = not self.steps_file.exists()
        with self.steps_file.open("a", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, STEP_COLUMNS, lineterminator="\n")
            if begins:
                writer.writeheader()
            writer.writerows(self.steps)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for row in self.steps:
                    add_scalars(logger, {name: row[name] for name in EVERY_STEP if name in row}, int(row["step"]))
        self.steps = []

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

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Write the steps that the checkpoint includes, so that a resumed run finds them in the file."""
        self._write_steps(trainer)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """The step after which ``steps.csv`` is cut."""
        self.saved_step = checkpoint["global_step"]

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
