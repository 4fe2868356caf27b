"""A few command lines in unusual environments; ``python -m tests.robustness.storm`` generates more of them."""

import pytest

from tests.conftest import chat_row, write_rows
from tests.robustness.corpus.command_lines import FOUND
from tests.robustness.storm.storm import Case, Outcome, cases, faults, start, storm
from tests.robustness.storm.world import build, place


@pytest.fixture
def inputs(tmp_path):
    """Rows alone, for lines that need no run."""
    made = tmp_path / "inputs"
    made.mkdir()
    write_rows(made / "rows.jsonl", *(chat_row(f"Question {n}", "Answer") for n in range(3)))
    return made


# by line and environment: the exit code, and words of the one message
FIXED = {
    ("help", "stdout without reader"): (0, ""),
    ("cfg", "stdout closed"): (2, "standard output: cannot be written to (Bad file descriptor)"),
    ("cfg", "stdout full"): (2, "standard output: cannot be written to (No space left on device)"),
    ("schema", "all closed"): (0, ""),
    ("schema", "full output"): (2, "out/schemas/callbacks.json: No space left on device"),
    ("preview", "cwd removed"): (2, "the working directory has been removed"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "environment"), FIXED)
def test_a_command_in_an_unusual_environment(line, environment, inputs, tmp_path):
    case = Case(line, environment)
    outcome = start(case, place(inputs, tmp_path / "case"))
    if outcome is None:
        pytest.skip("this system does not let us mount")
    code, words = FIXED[line, environment]
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert faults(case, outcome) == []


@pytest.mark.slow
def test_a_storm_finds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "models"))
    inputs = build(tmp_path / "world")
    found = storm([*FOUND, *cases(inputs, 200, 1)], inputs, tmp_path)
    assert not found, "\n".join(found)


def test_the_storm_sees_what_is_wrong():
    """Its own eyes: they must be able to find fault."""
    case = Case("preview", file="rows.jsonl", state="half")
    assert faults(case, Outcome(2, "", "llmft: in/rows.jsonl: row 3: not JSON\n", ())) == []
    for outcome in (
        Outcome(1, "", "llmft: a message\n", ()),
        Outcome(2, "", "llmft: a message\nTraceback (most recent call last)\n", ()),
        Outcome(2, "", "llmft: one\nllmft: two\n", ()),
        Outcome(2, "", "llmft: \n", ()),
        Outcome(2, "", "", ()),
        Outcome(2, "", "llmft: a message\n", ("out/x.tmp",)),
        Outcome(2, "", "llmft: a message\n", ("out/run", "out/run/config.yaml")),
        Outcome(0, "", "", ("tmp/llmft-1/in_use",)),
    ):
        assert len(faults(case, outcome)) == 1, outcome
