"""The line of progress: the time left, and what is logged without a terminal."""

import sys
from io import StringIO
from types import SimpleNamespace

import pytest

from llmft.utils import progress
from llmft.utils.progress import ProgressLine, clock


@pytest.fixture
def now(monkeypatch):
    """A clock that tests set."""
    time = SimpleNamespace(value=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: time.value)
    return time


def test_the_time_left_is_of_the_steps_of_this_process(now):
    line = ProgressLine("training", total=100, done=60)
    assert line.text() == "training: 60/100 steps"
    now.value += 20
    line.update(70, "loss 2.310")
    assert line.text() == "training: 70/100 steps, 1:00 left, loss 2.310"  # 2 seconds a step, 30 steps
    now.value += 5  # the next step is not done yet
    assert line.time_left() == "0:55 left"
    line.update(100)
    assert line.time_left() == "in 0:25"


def test_without_a_terminal_a_line_is_logged_at_every_tenth_or_minute(now, caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    with caplog.at_level("INFO", "llmft"), ProgressLine("training", total=20) as line:
        for step in (1, 2, 3, 4):
            now.value += 10
            line.update(step)
        now.value += 60
        line.update(5)
        now.value += 1
        for step in range(6, 21):
            line.update(step)
    assert caplog.messages == [
        "training: 2/20 steps, 3:00 left",
        "training: 4/20 steps, 2:40 left",
        "training: 5/20 steps, 5:00 left",
        "training: 20/20 steps, in 1:41",
    ]


class Screen(StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_has_one_line_of_its_width(monkeypatch, no_color):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    with ProgressLine("training", total=1000) as line:
        line.update(999, "epoch 12 loss 12.310 val 12.405")
    drawn = screen.getvalue()
    assert ("\x1b[9" in drawn or "\x1b[3" in drawn) == (not no_color)
    assert drawn.count("\n") == 1
    assert "999/1000 steps" in drawn
    assert "epoch 12 loss 12.310 val 12.405" in drawn


def test_a_notebook_has_one_display(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))  # noqa: ARG005
    fake = SimpleNamespace(display=lambda data, raw, display_id: shown.append(data["text/plain"]) or handle)  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=fake))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with ProgressLine("training", total=2) as line:
        line.update(1)
        line.update(2)
    assert shown == ["training: 0/2 steps", "training: 2/2 steps, in 0:00"]
    with ProgressLine("validating", total=1, leave=False) as line:
        line.update(1)
    assert len(shown) == 2  # it was over at once


def test_times_are_hours_minutes_and_seconds():
    assert [clock(seconds) for seconds in (0.4, 65, 7200)] == ["0:00", "1:05", "2:00:00"]
