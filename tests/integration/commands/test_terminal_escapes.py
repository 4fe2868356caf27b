"""A row and an answer that would steer a terminal, walked through every command that prints rows, answers or paths."""

import csv
import io
import json
import logging
from pathlib import Path

import pytest

from llmft.report import curves, leaderboard
from llmft.report import html as page
from llmft.sweep import tables
from llmft.utils.console import Console, Formatter, say
from llmft.utils.csv import cell, harmless, write
from llmft.utils.text import json_line, printable
from tests.conftest import read_json_lines, write_rows
from tests.integration.conftest import SHORT

# Sets the title, clears the screen, a one-byte CSI, backspaces over what stands there, rings, and turns the direction.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x08\r\u202egnp\x7f"
STEERING = "\x1b\x07\x08\r\x9b\x7f\u202e"
ROW = {"instruction": f"What is{EVIL} this?", "input": "", "output": f"An{EVIL} answer."}


def raw(text: str, colours: bool = False) -> list[str]:
    return [char for char in text if char in STEERING and not (colours and char == "\x1b")]


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """Trained on such rows, a file of theirs with such a name."""
    from llmft import train

    folder = tmp_path_factory.mktemp("evil")
    rows = write_rows(folder / f"rows{EVIL}.jsonl", *[{**ROW, "input": str(n)} for n in range(24)])
    short = [
        o for o in SHORT if not o.startswith(("data.path", "questions", "callbacks.samples", "evaluate", "report"))
    ]
    given = ["model=tiny_gpt2", "data=alpaca", f"data.path={rows}", "peft=lora", *short]
    more = ["questions=1", "callbacks.samples.number=1", "evaluate.rows=2", f"output_dir={folder / 'run'}"]
    return train([*given, *more]).path, rows


@pytest.mark.slow
@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("command", ["preview", "answer", "evaluate", "report", "runs", "error", "replayed"])
def test_no_command_prints_what_steers(command, format, evil_run, llmft, tmp_path):
    run, rows = evil_run
    bad = write_rows(tmp_path / "bad.jsonl", {"instruction": EVIL, "output": 3})
    (tmp_path / "asked.txt").write_text(f"What{EVIL} is this?\n")
    line = {
        "preview": ["preview", "model=tiny_gpt2", "data=alpaca", f"data.path={rows}", f"format={format}"],
        "answer": ["answer", f"run={run}", "input=asked.txt", f"format={format}"],
        "evaluate": ["evaluate", f"run={run}", "evaluate.rows=2", f"format={format}"],
        "report": ["report", f"run={run}"],
        "runs": ["report", f"runs={run.parent}"],
        "error": ["preview", "model=tiny_gpt2", "data=alpaca", f"data.path={bad}"],
        "replayed": ["replay", f"run={tmp_path / EVIL}"],
    }[command]
    code, out, err = llmft(*line)
    assert code == (2 if command in ("error", "replayed") else 0), err
    assert not raw(out + err)
    if format == "json" and command in ("preview", "answer"):
        shown = [json.loads(text) for text in out.splitlines() if text.startswith("{")]
        assert any(EVIL in (row.get("prompt") or row.get("question") or "") for row in shown)  # the meaning is kept


@pytest.mark.slow
def test_a_training_prints_and_keeps_what_does_not_steer(evil_run, llmft):
    run, rows = evil_run
    for name in ("log.txt", "run.json", "samples.jsonl", "predictions.jsonl", "report.html"):
        text = (run / name).read_bytes().decode()
        assert not raw(text), name
    assert any(EVIL in str(row["prompt"]) for row in read_json_lines(run / "predictions.jsonl"))  # the meaning is kept
    given = ["model=tiny_gpt2", "data=alpaca", f"data.path={rows}", "debug=fast", "output_dir=again"]
    code, out, err = llmft(*given)
    assert code == 0, err
    assert not raw(out + err)


@pytest.mark.slow
def test_what_chat_prints(evil_run, llmft, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"hello{EVIL}\n"))
    code, out, err = llmft("chat", f"run={evil_run[0]}")
    assert code == 0, err
    assert not raw(out + err)


def test_the_console_the_message_and_the_log(capsys):
    from rich.table import Table

    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    for thing in (EVIL, table):
        out = io.StringIO()
        Console(file=out, force_terminal=True, width=60).print(thing, style="red")
        assert "owned" in out.getvalue()
        assert not raw(out.getvalue(), colours=True)
        assert out.getvalue().count("\x1b") == out.getvalue().count("\x1b[")  # colours alone
        assert "\x1b[2J" not in out.getvalue()
    say(EVIL)
    assert not raw(capsys.readouterr().err)
    record = logging.LogRecord("llmft", 20, "", 0, "%s", (EVIL,), None)
    assert not raw(Formatter("%(message)s").format(record))
    assert json.loads(json_line({"a": EVIL})) == {"a": EVIL}
    assert printable("a\tb\n\u00e9\u4e2d") == "a\tb\n\u00e9\u4e2d"


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =cmd|' /C calc'!A0",
    "\uff1d1+1",
    "-2+3+cmd|' /C calc'!A0",
]


def test_no_cell_of_any_csv_file_is_a_formula(tmp_path):
    for formula in FORMULAS:
        assert harmless(formula) == f"'{formula}"
    assert [cell(v) for v in (-1.5, "-1.5", "-3e-05", "-inf", None, "", "a=b")] == ["-1.5", "-1.5", "-3e-05", "-inf", "", "", "a=b"]  # fmt: skip
    tables.write(tmp_path, [{"run": f, "reason": f, "=head": f} for f in FORMULAS])
    write(tmp_path / "cells.csv", [FORMULAS])
    getattr(page, "_write_scores")({f: {"tuned": 1, "verdict": f} for f in FORMULAS}, tmp_path / "scores.csv")  # noqa: B009
    curves.write_csv_files({"=1+1": curves.Series([1], [1.0], [-0.5])}, tmp_path)
    for n, formula in enumerate(FORMULAS):
        run(tmp_path / "runs" / str(n), formula)
    leaderboard.write_leaderboard(tmp_path / "runs")
    files = sorted(tmp_path.rglob("*.csv"))
    assert len(files) >= 5
    for file in files:
        with file.open(newline="") as opened:
            for row in csv.reader(opened):
                assert not [value for value in row if cell(value) != value and not value.startswith("'")], file


def run(folder: Path, name: str) -> None:
    """A run directory of somebody else that a leaderboard takes up."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps({"model": {"name": name}, "data": {"name": name}, "peft": {"name": name}, "seed": 1, "objective": "val/loss", "optim": {"lr": name}}))  # fmt: skip
    record = {"status": "finished", "objective": 1.0, "seed": 1, "metrics": {"after": {"val/loss": 1.0}}, "seconds": 1}
    (folder / "run.json").write_text(json.dumps(record))
