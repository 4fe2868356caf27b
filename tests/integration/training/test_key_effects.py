"""``prove.keys``: a dead key is seen as one, a live one by what it changes."""

import json

import pytest

from llmft.training.key_effects import key_effects
from tests.conftest import write_rows

ROWS = [{"instruction": f"What is {n}?", "input": "", "output": f"It is {n}."} for n in range(8)]
KEYS = (
    "model=tiny_gpt2", "data=alpaca", "data.path=rows.jsonl", "peft=lora", "optim.lr=1e-2", "trainer.log_every_n_steps=3",
    "generation.max_new_tokens=4", "evaluate.rows=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Eight short rows, and two steps."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_rows(file, *ROWS)
    return key_effects("train", [key.replace("rows.jsonl", str(file)) for key in KEYS], 2)


def test_a_dead_key_and_a_live_one(found):
    kinds = {key: effect.kind for key, effect in found.effects.items()}
    assert kinds["trainer.log_every_n_steps"] == "none"
    assert "trainer.log_every_n_steps" in found.sentence
    assert kinds["optim.lr"] == "changes"
    changed = found.effects["optim.lr"].changes
    assert "learning rate" in changed
    assert not {"ids", "batches"} & changed.keys()
    assert found.effects["generation.max_new_tokens"].changes.keys() == {"generated ids"}
    assert found.noise == {}  # on a CPU, two equal trainings are equal


def test_keys_that_are_not_put_back(found):
    assert found.effects["evaluate.rows"].kind == "outside"
    assert found.effects["peft"].kind == "default"
    assert found.effects["model"].kind == "needed"
    assert "would be downloaded" in found.effects["model"].reason
    assert "would be downloaded" in found.effects["data.path"].reason
    assert "cannot be left out: " in found.effects["data"].sentence(2)  # the rows are of another format


@pytest.mark.slow
def test_a_training_keeps_them_and_computes_the_same(llmft, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *ROWS)
    keys = (
        *KEYS,
        "peft.dropout=0",
        "model.dropout=0",
        "baseline=false",
        "questions=0",
        "logger=none",
        "trainer.max_steps=3",
    )
    for name, prove in (("plain", ()), ("proven", ("prove.steps=2", "prove.keys=true"))):
        code, _, err = llmft(*keys, *prove, f"output_dir={name}")
        assert code == 0, err
    record = json.loads((tmp_path / "proven" / "run.json").read_text())
    assert record["prove_keys"]["keys"]["trainer.log_every_n_steps"]["effect"] == "none"
    assert record["prove"]["agrees"]
    assert "What each key does" in (tmp_path / "proven" / "report.html").read_text()
    plain, proven = ((tmp_path / name / "steps.csv").read_bytes() for name in ("plain", "proven"))
    assert plain == proven
