"""The way out that a halted training names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmft.callbacks.nan_guard import WAYS_OUT, NanGuard

NF4 = {"bnb_4bit_compute_dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("precision", "step", "quantized", "cause"),
    [
        ("32-true", 0, None, "model"),
        ("32-true", 3, None, "update"),
        ("16-mixed", 0, None, "float16"),
        ("16-mixed", 3, None, "float16"),
        ("bf16-mixed", 3, NF4, "update"),
        ("32-true", 0, NF4 | {"bnb_4bit_compute_dtype": torch.float16}, "products"),
        ("32-true", 3, NF4 | {"bnb_4bit_compute_dtype": torch.float16}, "products"),
    ],
)
def test_the_cause_is_float16_where_something_is_multiplied_in_it(precision, step, quantized, cause):
    run: Any = SimpleNamespace(path=Path("run"))
    guard = NanGuard(3, 3.0, 3, 5, 10, "val/loss", run=run)
    trainer: Any = SimpleNamespace(precision=precision, global_step=step)
    settings = {"quantization_config": SimpleNamespace(**quantized)} if quantized else {}
    module: Any = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(**settings)))
    assert guard._cause(trainer, module) == cause
    assert cause in WAYS_OUT
