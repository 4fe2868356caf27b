"""docs/notebook.ipynb runs from top to bottom, with a tiny model, and leaves the kernel as it was."""

import pytest

from tests.conftest import ROOT
from tests.support.docs_scripts import docs_script

pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytestmark = pytest.mark.slow

BEFORE = """\
import logging, signal, threading

def state():
    loggers = [logging.getLogger(name) for name in ("", "llmft")]
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return [(logger.level, list(logger.handlers)) for logger in loggers], signals, threading.excepthook

before = state()
"""
TINY = '"experiment=support", "model=tiny_gpt2", "data.max_answer_tokens=80", "generation.max_new_tokens=8",'
CHANGED = (
    ('"experiment=support",', TINY),
    ("max_steps=50", "max_steps=3"),
    ("evaluate.rows=32", "evaluate.rows=4"),
    ("from llmft import train", BEFORE + "from llmft import train"),
    ("import shutil", "import shutil\nassert state() == before, state()"),
)


def test_it_runs_without_warnings_and_leaves_the_kernel_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    script = docs_script("make_notebook")
    text = script.PAGE.read_text(encoding="utf-8")
    missing = [old for old, _ in CHANGED if old not in text and old.replace('"', '\\"') not in text]
    assert missing == []
    cells = [cell for cell in script.executed(tmp_path, CHANGED).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert not [kind for kind in shown if "widget" in kind]
    assert "widgets" not in str(outputs)
    results = [output.data for output in outputs if output.output_type == "execute_result"]
    assert "support on tiny_gpt2" in results[0]["text/html"]  # the run
    assert "image/png" in results[1]  # its plot
    assert [name in results[2]["text/html"] for name in ("train/loss", "val/loss")] == [True, True]
    assert list(tmp_path.iterdir()) == []  # its last cell cleans up
