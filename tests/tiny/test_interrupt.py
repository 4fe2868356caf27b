"""Ctrl-C: exit code 130, status `interrupted`, and what was logged and saved is kept."""

import json
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("reached", ["run.json", "checkpoints/last.ckpt"], ids=["at the start", "in the second epoch"])
def test_ctrl_c(reached, tmp_path):
    command = [
        sys.executable,
        "-m",
        "llmft",
        "model=tiny_gpt2",
        "data=alpaca",
        "trainer.max_epochs=1000",
        "output_dir=run",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        give_up = time.monotonic() + 120
        while not (tmp_path / "run" / reached).exists():
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "llmft: interrupted" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "run" / "model").exists()
    if "last" in reached:
        steps = [line.partition(",")[0] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
        assert steps[:4] == ["0", "1", "10", "11"]
