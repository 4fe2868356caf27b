"""Three rows are learnt by heart: the greedy answer is the target, character for character, and stops by itself."""

import json

import pytest

from tests.conftest import chat_row, forked, read_json_lines, write_rows

ROWS = [
    ("Capital of France?", "Paris.\n"),
    ("Two and two?", "It is {4}."),
    ("A colour?", "blau, grün </s> <|endoftext|>"),
]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        ("tiny_t5", "none"),
        pytest.param("tiny_t5", "lora", marks=SLOW),
        *(pytest.param("tiny_gpt2", peft, marks=SLOW) for peft in ("none", "lora")),
        *(pytest.param("tiny_llama", peft, marks=SLOW) for peft in ("none", "lora")),
    ],
)
def test_overfit(model, peft, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", *(chat_row(*row) for row in ROWS))
    lora = ["peft.dropout=0", "peft.targets=all-linear", "peft.r=32"] if peft == "lora" else []
    done = forked(
        f"model={model}", "data=academic", f"peft={peft}", f"data.path={rows}", "debug=overfit", "logger=none", *lora,
        "scheduler=constant", f"optim.lr={'5e-3' if peft == 'lora' else '3e-3'}", f"trainer.max_epochs={200 if peft == 'lora' else 100}", "output_dir=run",
        "callbacks.progress.refresh_rate=0", "baseline=false", "questions=0", "evaluate.rows=0", "report.write=false", "trainer.log_every_n_steps=100",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    questions = write_rows(tmp_path / "questions.jsonl", *({"question": question} for question, _ in ROWS))
    asked = forked("answer", "run=run", f"input={questions}", "output=answers.jsonl", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    answers = read_json_lines(tmp_path / "answers.jsonl")
    assert [(a["answer"], a["ended"]) for a in answers] == [(answer, True) for _, answer in ROWS]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["split"] == {"train": 3, "test": 0, "val": 0}
    assert record["objective"] is None
