"""Every data set with every family goes through one batch of training and validation (Lightning's fast-dev-run)."""

import json

import pytest

from tests.conftest import DATA, SHARED, TINY

PAIRS = [(model, data) for model in TINY for data in DATA]
FAST = [*(("tiny_t5", data) for data in DATA), ("tiny_gpt2", "academic"), ("tiny_gpt2", "keyword_qa")]


@pytest.mark.parametrize(
    ("model", "data"),
    [pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow) for pair in PAIRS],
)
def test_fast_dev_run(model, data, llmft, tmp_path):
    peft = "none" if model == "tiny_gpt2" else "lora"
    code, out, err = llmft(
        f"model={model}", f"data={data}", "data.path=sample", f"peft={peft}", "debug=fast", "output_dir=run"
    )
    assert code == 0, err
    assert "run directory" in out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["metrics"]["steps"] == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", TINY)
def test_a_whole_epoch_on_the_real_rows(model, data, llmft, tmp_path):
    file = SHARED / DATA[data]
    if not file.exists():
        pytest.skip(f"the real rows are not here: {file}")
    code, _, err = llmft(
        f"model={model}", f"data={data}", f"data.path={file}", "trainer.max_epochs=1", "questions=0", "evaluate.rows=0", "report.write=false",
        "callbacks.samples.number=0", "data.batching=grouped", "data.max_prompt_tokens=2000", "data.max_answer_tokens=1500",
        "output_dir=run",
    )  # fmt: skip
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"]["after"]["val/loss"] < record["metrics"]["before"]["val/loss"]
    assert "WARNING" not in (tmp_path / "run" / "log.txt").read_text()
