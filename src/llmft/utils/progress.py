"""One line of progress: redrawn in a terminal and in a notebook, and logged now and then where neither is there."""

import logging
import time
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from llmft.utils.console import Console

log = logging.getLogger(__name__)

REDRAWS = 4  # per second, in a terminal
NOTEBOOK_SECONDS = 0.5  # between two updates of a notebook's display
TENTH = 0.1  # of the total, between two logged lines
LEAST_SECONDS, MOST_SECONDS = 5.0, 60.0  # between two logged lines


class ProgressLine:
    """Progress of a loop as one line, with the time left for all of it.

    The time left is that of the average speed since the start, pauses such as validations included.

    Args:
        what: What is running, such as ``training``.
        total: Number of steps; None if it is not known.
        done: Steps that an earlier process has done.
        unit: Of the steps, in the plural.
        leave: Keep the finished line in the terminal.
    """

    def __init__(self, what: str, total: int | None, done: int = 0, *, unit: str = "steps", leave: bool = True) -> None:
        self.what, self.total, self.done, self.unit, self.leave = what, total, done, unit, leave
        self.detail, self.activity = "", what
        self.first, self.started = done, time.monotonic()
        self.moved = self.shown = self.started
        self.shown_done = done
        self.bar: Progress | None = None
        self.in_notebook = False
        self.display: Any = None
        self.closed = False

    def __enter__(self) -> Self:
        console = Console(stderr=True, highlight=False)
        self.in_notebook = console.is_jupyter
        if self.in_notebook:
            self._redisplay(due=self.leave)  # a short line that is not left has no display
        elif console.is_terminal and not console.is_dumb_terminal:
            self.bar = Progress(
                *_columns(self), console=console, expand=True, refresh_per_second=REDRAWS, transient=not self.leave
            )
            self.bar.add_task(self.what, total=self.total, completed=self.done)
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int, detail: str = "", activity: str | None = None) -> None:
        """Show a new state.

        Args:
            done: Steps that are done, of ``total``.
            detail: Shown at the end of the line.
            activity: Shown in place of ``what``, until the next update.
        """
        if done != self.done:
            self.moved = time.monotonic()
        self.done, self.detail, self.activity = done, detail or self.detail, activity or self.what
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=done)
        elif self.in_notebook:
            self._redisplay(due=time.monotonic() - self.shown >= NOTEBOOK_SECONDS)
        elif self._due():
            self._log()

    def close(self) -> None:
        """Draw the line a last time and give the terminal back; may be called twice."""
        if self.closed:
            return
        self.closed, self.activity = True, self.what
        if self.bar:
            self.bar.stop()
        elif self.in_notebook:
            self._redisplay(due=self.display is not None)
        elif self.leave and self.done > self.shown_done and self.done == self.total:
            self._log()

    def text(self) -> str:
        """The line as plain text, such as ``training: 12/100 steps, 1:23 left, loss 2.31``."""
        of = self.done if self.total is None else f"{self.done:,}/{self.total:,}"
        return ", ".join(filter(None, (f"{self.activity}: {of} {self.unit}", self.time_left(), self.detail)))

    def time_left(self) -> str:
        """The time left, or the time that it took; empty before the first step."""
        if self.done == self.total:
            return f"in {clock(self.moved - self.started)}"
        if self.total is None or self.done <= self.first:
            return ""
        at_last_step = (self.moved - self.started) / (self.done - self.first) * (self.total - self.done)
        return f"{clock(max(0.0, at_last_step - (time.monotonic() - self.moved)))} left"

    def _due(self) -> bool:
        seconds = time.monotonic() - self.shown
        is_tenth = self.total is not None and self.done - self.shown_done >= TENTH * self.total
        return seconds >= MOST_SECONDS or (is_tenth and seconds >= LEAST_SECONDS)

    def _log(self) -> None:
        self.shown, self.shown_done = time.monotonic(), self.done
        log.info(self.text())

    def _redisplay(self, *, due: bool) -> None:
        if not due:
            return
        self.shown, shown = time.monotonic(), {"text/plain": self.text()}
        if self.display is None:
            from IPython.display import display  # pyright: ignore[reportMissingImports]

            self.display = display(shown, raw=True, display_id=True)
        else:
            self.display.update(shown, raw=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as ``1:05`` or ``2:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Part(ProgressColumn):
    """A text of the line, computed when it is drawn."""

    def __init__(self, line: ProgressLine, name: str) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self.line, self.name = line, name

    def render(self, task: Task) -> RenderableType:  # noqa: ARG002
        """The text."""
        value: Any = getattr(self.line, self.name)
        return Text(str(value() if callable(value) else value))


def _columns(line: ProgressLine) -> list[ProgressColumn]:
    of = "{task.completed}" if line.total is None else "{task.completed}/{task.total}"
    counts = TextColumn(f"{of} {line.unit}", table_column=Column(no_wrap=True))
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4))
    return [_Part(line, "activity"), bar, counts, _Part(line, "time_left"), _Part(line, "detail")]
