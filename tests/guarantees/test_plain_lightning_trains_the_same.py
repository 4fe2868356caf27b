"""A ``lightning.Trainer`` of the user's own trains the parts of ``llmft.build`` as ``llmft.train`` does, to the last bit."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import llmft
from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.runs.checkpoint_io import load

SHARED = ["data=alpaca", "data.path=sample", "data.limit=20", "data.batch_size=2", "trainer.max_epochs=1", "trainer.accelerator=cpu",
          "trainer.log_every_n_steps=1", "generation.max_new_tokens=6", "callbacks.progress.refresh_rate=0", "evaluate.base=false",
          "report.write=false", "logger=none", "questions=0", "callbacks.samples.number=0"]  # fmt: skip
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Losses(lightning.Callback):
    """The loss of each optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if not pl_module.window_open:
            self.seen.append(pl_module.window_loss)


def fitted(settings: list[str]) -> tuple[Any, Any, list[float]]:
    """Parts, trainer and losses of a plain training, whose length is the trainer's own and not the config's."""
    parts, losses = llmft.build([*settings, "trainer.max_epochs=3"]), Losses()
    torch.rand(7)  # a notebook may draw whatever it likes in between
    accumulate, devices = parts.cfg.trainer.accumulate_grad_batches, parts.cfg.trainer.devices
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", deterministic="warn",
        accumulate_grad_batches=accumulate, use_distributed_sampler=False, callbacks=[GradientClipping(max_norm=1.0), losses], **QUIET,
    )  # fmt: skip
    trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts, trainer, losses.seen


def recorded(run: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and last weights of a run."""
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    return losses, load(run / "checkpoints" / "last.ckpt")["state_dict"]


def assert_same(run: Path, losses: list[float], state: dict[str, torch.Tensor]) -> None:
    expected, weights = recorded(run)
    assert len(expected) >= 3
    assert losses == expected
    assert {name for name, weight in weights.items() if not torch.equal(weight, state[name])} == set()


@pytest.mark.parametrize(
    "settings",
    [["model=tiny_gpt2", "peft=lora"], ["model=tiny_t5", "peft=none", "trainer.accumulate_grad_batches=2"]],
    ids=["causal", "seq2seq-accumulated"],
)
def test_plain_lightning_trains_the_same(settings, tmp_path):
    run = llmft.train([*settings, *SHARED, f"output_dir={tmp_path / 'run'}"])
    parts, trainer, losses = fitted([*settings, *SHARED])
    assert_same(run.path, losses, parts.module.state_dict())
    # the last weights are the best ones, and so those that the run evaluated
    assert run.record["metrics"]["best_step"] == trainer.global_step
    (tested,) = trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)
    assert run.scores is not None
    assert tested["test/loss"] == pytest.approx(run.scores["scores"]["loss"]["tuned"], rel=1e-5)
    predicted: Any = trainer.predict(parts.module, datamodule=parts.datamodule)
    lines = (run.path / "predictions.jsonl").read_text().splitlines()
    assert [answer.text for batch in predicted for answer in batch] == [json.loads(line)["answer"] for line in lines]


@pytest.mark.slow
def test_with_two_processes(tmp_path):
    settings = ["model=tiny_gpt2", "peft=lora", "trainer.devices=2", "trainer.strategy=ddp", *SHARED]
    script = (
        "import sys, json, torch\n"
        "from tests.guarantees.test_plain_lightning_trains_the_same import fitted\n"
        "parts, trainer, losses = fitted(json.loads(sys.argv[1]))\n"
        "if trainer.is_global_zero: torch.save({'losses': losses, 'state': parts.module.state_dict()}, 'plain.pt')\n"
    )
    (tmp_path / "plain.py").write_text(script)
    root = str(Path(__file__).parents[2])
    for command in (
        ["-m", "llmft", *settings, "output_dir=run"],
        ["plain.py", json.dumps(settings)],
    ):
        environment = {**os.environ, "PYTHONPATH": f"{root}:{root}/src"}
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, env=environment)
    plain = torch.load(tmp_path / "plain.pt")
    assert_same(tmp_path / "run", plain["losses"], plain["state"])


def test_a_trainer_with_other_settings_is_refused_with_the_arguments_to_pass(tmp_path):
    parts = llmft.build(["model=tiny_gpt2", "peft=lora", "trainer.accumulate_grad_batches=2", *SHARED, f"output_dir={tmp_path / 'run'}"])  # fmt: skip
    assert not (tmp_path / "run").exists()
    trainer = lightning.Trainer(max_epochs=2, gradient_clip_val=0.5, accelerator="cpu", deterministic="warn", **QUIET)
    with pytest.raises(llmft.UserError) as refused:
        trainer.fit(parts.module, datamodule=parts.datamodule)
    assert str(refused.value).splitlines() == [
        "trainer: 3 faults",
        "  - accumulate_grad_batches=1: pass accumulate_grad_batches=2",
        "  - gradient_clip_val=0.5: pass gradient_clip_val=None",
        "  - gradient clipping: pass callbacks=[GradientClipping(max_norm=1.0), ...] (llmft.callbacks)",
    ]
    assert "accumulate_grad_batches  2\n" in str(parts)


def test_llmfts_callbacks_work_in_a_trainer_of_ones_own(tmp_path):
    settings = ["model=tiny_gpt2", "peft=lora", *SHARED, "callbacks.samples.number=1", f"output_dir={tmp_path / 'run'}"]
    parts = llmft.build(settings)
    trainer = lightning.Trainer(**parts.trainer_settings, callbacks=parts.callbacks, logger=False)
    trainer.fit(parts.module, datamodule=parts.datamodule)
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"checkpoints", "metrics.csv", "samples.jsonl"}
    assert recorded(tmp_path / "run")[0]
