"""Trained tiny runs that several files of this folder ask and export; none of them changes one."""

from pathlib import Path
from typing import Any

import pytest

SHORT = (
    "data.path=sample", "data.limit=24", "trainer.max_steps=4", "optim.lr=1e-2", "questions=0", "evaluate.rows=0", "baseline=false",
    "callbacks.samples.number=0", "callbacks.progress.refresh_rate=0", "report.write=false", "logger=none", "generation.max_new_tokens=10",
)  # fmt: skip


@pytest.fixture(scope="session")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a tiny GPT-2."""
    return trained(tmp_path_factory, "model=tiny_gpt2", "data=alpaca", "peft=lora")


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full fine-tuning of a tiny T5, under a system line."""
    return trained(tmp_path_factory, "model=tiny_t5", "data=psychology", "peft=none")


def trained(folders: Any, *overrides: str) -> Path:
    """The run directory of a short training in this process."""
    from llmft import train

    return train([*overrides, *SHORT, f"output_dir={folders.mktemp('runs') / 'run'}"]).path
