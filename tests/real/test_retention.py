"""The thresholds of retention on a real model: a training that is forced to forget is flagged, a normal one is not."""

import pytest

from llmft import train

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.parametrize(("lr", "flagged"), [("2e-4", False), ("1e-2", True)])
def test_only_a_training_that_forgets_is_flagged(lr, flagged, tmp_path):
    run = train([
        "model=smollm2_135m", "data=academic", "data.path=sample", "peft=lora", f"optim.lr={lr}", "trainer.max_epochs=3",
        "baseline=false", "questions=0", "evaluate.rows=0", "callbacks.samples.number=0", "report.write=false", "logger=none",
        "evaluate.retention=shipped", f"output_dir={tmp_path / 'run'}",
    ])  # fmt: skip
    assert run.record["retention"]["flagged"] is flagged
