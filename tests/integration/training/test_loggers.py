"""Loggers: several at once, offline, each with the numbers of metrics.csv."""

import csv
import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from llmft.callbacks.metrics_log import MetricsLog
from llmft.runs.directory import RunDirectory

FAST = ("model=tiny_gpt2", "data=alpaca", "data.path=sample", "data.limit=30", "trainer.max_steps=2", "questions=0", "callbacks.samples.number=0", "generation.max_new_tokens=3",
        "evaluate.rows=2", "report.write=false", "baseline=false", "output_dir=run")  # fmt: skip


def test_a_logger_that_is_not_installed_is_named(llmft, monkeypatch):
    import lightning.pytorch.loggers.wandb as module

    monkeypatch.setattr(module, "_WANDB_AVAILABLE", False)
    code, _, err = llmft(*FAST, "logger=wandb")
    assert (code, "logger=wandb: is not installed; pip install 'llmft[wandb]'" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("names", [["mlflow"], ["wandb"], ["tensorboard", "wandb", "mlflow"]], ids="+".join)
def test_loggers_write_offline_into_the_run(names, llmft, tmp_path, monkeypatch):
    for package in {"wandb", "mlflow"} & set(names):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'llmft[{package}]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    code, _, err = llmft(*FAST, f"logger=[{','.join(names)}]")
    assert code == 0, err
    last = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))[-1]
    if "mlflow" in names:
        (file,) = (tmp_path / "run" / "mlruns").rglob("metrics/test/loss")
        _, value, step = file.read_text().split()[:3]
        assert float(value) == pytest.approx(float(last["test/loss"]))
        assert int(step) == int(last["step"])
        assert list((tmp_path / "run" / "mlruns").rglob("params/optim.lr"))
    if "wandb" in names:
        assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert (tmp_path / "run" / "tensorboard").is_dir() == ("tensorboard" in names)


def test_a_logger_that_a_signal_stopped_in_the_middle_is_not_the_news(tmp_path, caplog):
    class Torn:
        def log_metrics(self, *_: object, **__: object) -> None:
            raise ValueError("\n you tried to log 3.0 which is currently not supported.")

    metrics = MetricsLog(run=RunDirectory(tmp_path))
    metrics.row = {"step": 1, "train/loss": 3.0}
    trainer: Any = SimpleNamespace(global_rank=0, loggers=[Torn()])
    metrics.on_exception(trainer, None, KeyboardInterrupt())
    assert "metrics: the last step could not be written (ValueError: you tried to log 3.0 which" in caplog.text
    with pytest.raises(ValueError, match="not supported"):  # as long as nothing else has ended the run
        metrics.add(trainer, {"val/loss": 1.0})
