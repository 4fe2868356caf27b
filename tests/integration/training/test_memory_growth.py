"""Memory of a training: no epoch adds to it, and no validation row."""

import json
from pathlib import Path

import pytest

from tests.conftest import forked

COMMON = ("model=tiny_gpt2", "data=keyword_qa", "data.path=rows.jsonl", "data.split.test=0", "trainer.accelerator=cpu", "questions=0",
          "evaluate.rows=0", "report.write=false", "logger=none", "data.duplicates=keep", "callbacks.progress=null")  # fmt: skip
# MiB; the allocator's own ups and downs are about ten
BOUND = 40


def peak(folder: Path, rows: int, *overrides: str) -> float:
    """MiB of a training in a process of its own."""
    texts = [json.dumps({"question": f"What follows {n}?", "answer_keywords": [str(n + 1)]}) for n in range(rows)]
    (folder / "rows.jsonl").write_text("\n".join(texts))
    name = f"run{len(list(folder.iterdir()))}"
    done = forked(*COMMON, *overrides, f"output_dir={folder / name}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / name / "run.json").read_text())["peak_memory_mib"]["cpu"]


@pytest.mark.slow
def test_epochs_add_nothing(tmp_path):
    few, many = (peak(tmp_path, 256, f"trainer.max_epochs={epochs}") for epochs in (2, 12))
    assert many < few + BOUND


@pytest.mark.slow
def test_validation_rows_add_nothing(tmp_path):
    few, many = (
        peak(tmp_path, 64 + held_out, f"data.split.val={held_out / (64 + held_out)}", "trainer.max_epochs=1")
        for held_out in (64, 4096)
    )
    assert many < few + BOUND
