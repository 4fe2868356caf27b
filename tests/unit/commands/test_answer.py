"""The file of answers of a command that is stopped, and its progress; no model is loaded."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmft.commands import answer
from llmft.data.records import Example, Turn
from llmft.generation.stream import Answer
from llmft.utils.console import Console

QUESTIONS = [Example((Turn("user", f"question {number}"),), "", str(number)) for number in range(5)]
PROMPTS = [[number] for number in range(5)]
MODEL = SimpleNamespace(path="a model", revision=None, gguf_file=None)


def generator(stop_after: int | None = None) -> Any:
    """Answers with the number of prompts so far, one prompt a batch; Ctrl-C after some."""
    asked: list[Any] = []

    def continued(prompts: Any, *, finished: Any) -> list[Answer]:
        found = []
        for row, prompt in enumerate(prompts):
            if len(asked) == stop_after:
                raise KeyboardInterrupt
            asked.append(prompt)
            found.append(Answer(f"answer {len(asked)}", ended=True, tokens=2))
            finished([row], found[-1:])
        return found

    made = SimpleNamespace(given={}, batch_size=1, continued=continued)
    made.sharing = lambda _: made
    return made


def written(output: str, made: Any) -> str:
    """What ``output=`` is answered with."""
    config: Any = SimpleNamespace(
        output=output, compare=False, run=None, model=MODEL, prompt=SimpleNamespace(node=dict)
    )
    console = Console(highlight=False)
    with console.capture() as shown:
        answer._write_file(config, made, QUESTIONS, PROMPTS, console)
    return shown.get()


@pytest.fixture(autouse=True)
def typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answer, "BATCHES", 2)
    monkeypatch.setattr(answer, "task_overrides", lambda: ["run=outputs/a run", "input=q.jsonl"])


def test_ctrl_c_keeps_the_answers_so_far_and_prints_the_command_that_resumes(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stopped:
        written("a.jsonl", generator(stop_after=3))
    again = "python -m llmft answer 'run=outputs/a run' input=q.jsonl"
    assert str(stopped.value) == f"interrupted, 2 of 5 answers are in a.jsonl; to resume: {again}"
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 2
    assert written("a.jsonl", generator()) == "resuming: 2 of 5 answers exist\n5 answers: a.jsonl\n"
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 5


def test_a_text_file_says_that_it_cannot_be_resumed():
    with pytest.raises(KeyboardInterrupt) as stopped:
        written("a.txt", generator(stop_after=3))
    said = "interrupted, 2 of 5 answers are in a.txt, which cannot be resumed (.jsonl and .csv can)"
    assert str(stopped.value) == said


def test_progress_counts_answers_also_those_of_the_base(monkeypatch):
    lines = []
    monkeypatch.setattr(
        answer.ProgressLine,
        "update",
        lambda line, done: lines.append((done, line.total)) or setattr(line, "done", done),
    )
    monkeypatch.setattr(answer, "load_base", lambda *_: generator())
    config: Any = SimpleNamespace(compare=True)
    rows = [row for rows in answer._rows(config, generator(), QUESTIONS[:3], PROMPTS[:3], 1) for row in rows]
    assert [row["base_answer"] for row in rows] == ["answer 1", "answer 2"]
    assert lines == [(3, 6), (4, 6), (5, 6), (6, 6)]
