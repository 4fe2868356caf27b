"""What every command sets up first."""

import io
import logging
import sys
import threading
import warnings

from llmft.utils import logging as logging_of_llmft
from llmft.utils.logging import FILE_ONLY, KeptLog, log_to, quiet, quietly, restored_logging, without_widgets


def test_the_log_goes_to_what_is_standard_error_by_then(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    log_to(None)
    log = logging.getLogger("llmft.somewhere")
    log.info("one")
    first_text = first.getvalue()
    first.close()  # as a test's capture is when the test is over
    monkeypatch.setattr("sys.stderr", second)
    log.info("two")
    assert (first_text, second.getvalue()) == ("one\n", "two\n")


def test_a_log_that_cannot_be_written_says_so_once(capfd, monkeypatch):
    handler = KeptLog("/dev/full")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    for _ in range(3):
        root.error("a line")
    handler.stream = None
    err = capfd.readouterr().err
    assert err.count("/dev/full: nothing more is written to it (No space left on device)") == 1
    assert "Traceback" not in err


def test_the_jobs_of_a_sweep_do_not_repeat_a_line_in_the_terminal(monkeypatch, tmp_path):
    monkeypatch.setattr(logging_of_llmft, "SHOWN", set())
    log, terminal = logging.getLogger("llmft.somewhere"), io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    for job in ("0.txt", "1.txt"):
        log_to(tmp_path / job, once=True)
        log.info("split: 12 train")
        log.info("a reason", extra=FILE_ONLY)
        log.warning("a warning")
    log_to(None)
    assert terminal.getvalue() == "split: 12 train\na warning\na warning\n"
    assert "a reason" in (tmp_path / "1.txt").read_text()
    assert "split: 12 train" in (tmp_path / "1.txt").read_text()


def test_a_notebook_gets_its_handlers_and_warnings_back(tmp_path):
    root, ours = logging.getLogger(), logging.getLogger("llmft")

    def state():
        levels = root.level, ours.level, logging.getLogger("lightning.pytorch").level
        return levels, list(root.handlers), list(warnings.filters), warnings.showwarning, threading.excepthook

    for handler in [handler for handler in root.handlers if getattr(handler, "of_llmft", False)]:
        root.removeHandler(handler)  # of an earlier test
    ours.setLevel(logging.NOTSET)
    before = state()
    with restored_logging():
        quiet()
        log_to(tmp_path / "log.txt")
        assert state() != before
        inside = root.handlers[-1]
    assert state() == before
    assert getattr(inside, "stream", None) is None  # log.txt is closed


def test_the_log_of_a_notebook_is_not_shown_as_an_error(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    with restored_logging():
        log_to(None)
        logging.getLogger("llmft.somewhere").info("one")
    assert (out.getvalue(), err.getvalue()) == ("one\n", "")


def test_a_call_from_python_is_quiet_and_leaves_logging_as_it_was():
    ours, before = logging.getLogger("lightning.pytorch"), list(warnings.filters)
    level, hook = ours.level, threading.excepthook
    with quietly(), warnings.catch_warnings(record=True) as caught:
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
        assert ours.level == logging.WARNING
    assert caught == []
    assert (list(warnings.filters), ours.level, threading.excepthook) == (before, level, hook)


def test_a_notebook_is_not_told_to_install_widgets(monkeypatch):
    imported = []
    monkeypatch.setattr(
        "llmft.utils.logging.import_module",
        lambda name: (imported.append(name), warnings.warn("IProgress not found", stacklevel=1)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        without_widgets()
        assert imported == []  # elsewhere it costs nothing
        monkeypatch.setitem(sys.modules, "ipykernel", object())
        without_widgets()
    assert imported == ["tqdm.auto"]
