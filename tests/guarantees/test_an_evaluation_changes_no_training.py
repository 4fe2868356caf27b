"""Validations, samples and a measurement before training leave its losses as they are, on quantized bases too.

So do further validation sets, which leave ``val/loss`` as it is, to the last bit.
"""

import csv

import pytest

from tests.conftest import write_rows

RUN = ("data=alpaca", "data.path=sample", "data.limit=20", "data.batch_size=4", "trainer.max_steps=4", "trainer.log_every_n_steps=1", "optim.lr=1e-2",
       "scheduler=constant", "peft.targets=all-linear", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.max_new_tokens=4", "logger=none")  # fmt: skip
OFTEN = (
    "trainer.val_check_interval=1",
    "callbacks.samples.number=1",
    "baseline=true",
    "data.extra_val.more=more.jsonl",
)
NEVER = ("trainer.check_val_every_n_epoch=9", "callbacks.samples.number=0", "baseline=false")


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        ("tiny_llama", "qlora"),
        pytest.param("tiny_t5", "qlora", marks=pytest.mark.slow),
        pytest.param("tiny_gemma", "fp4", marks=pytest.mark.slow),
        pytest.param("tiny_gpt2", "lora_8bit", marks=pytest.mark.slow),
        pytest.param("tiny_t5", "lora_8bit", marks=pytest.mark.slow),
        pytest.param("tiny_llama", "lora", marks=pytest.mark.slow),
        pytest.param("tiny_gemma", "dora", marks=pytest.mark.slow),
    ],
)
def test_an_evaluation_changes_no_training(model, peft, llmft, tmp_path):
    found, last = {}, {}
    more = ({"instruction": f"Say {n}", "input": "", "output": f"It is {n}."} for n in range(3))
    write_rows(tmp_path / "more.jsonl", *more)
    for name, validations in (("often", OFTEN), ("never", NEVER)):
        code, _, err = llmft(f"model={model}", f"peft={peft}", *RUN, *validations, f"output_dir={name}")
        assert code == 0, err
        rows = [row for row in csv.DictReader((tmp_path / name / "metrics.csv").open()) if int(row["step"])]
        found[name] = [(row["step"], row["train/loss"], row["train/grad_norm"]) for row in rows]
        assert sum(bool(row["val/loss"]) for row in rows) == (4 if name == "often" else 1)
        last[name] = rows[-1]
    assert len(found["often"]) == 4
    assert found["often"] == found["never"]
    assert last["often"]["val/loss"] == last["never"]["val/loss"]
    assert float(last["often"]["val/more/loss"]) != float(last["often"]["val/loss"])
