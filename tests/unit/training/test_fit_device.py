"""What ``fit`` computes besides the training runs on the device that trains, which Lightning leaves between its stages."""

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmft.training import fit, prove
from llmft.utils.errors import UserError


class Model(torch.nn.Linear):
    """Notes where it is moved."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.where = "cpu"
        self.moves: list[str] = []

    def to(self, *args: Any, **_: Any) -> Any:
        self.where = torch.device(args[0]).type
        self.moves.append(self.where)
        return self


def test_answers_are_generated_on_the_device_that_trains():
    model = Model()
    generator = SimpleNamespace(model=model, answers=lambda contexts: [model.where for _ in contexts])
    parts: Any = SimpleNamespace(generator=generator, device=torch.device("cuda"))
    assert fit.answers(parts, [(), ()]) == ["cuda", "cuda"]
    assert model.moves == ["cuda", "cpu"]
    assert fit.answers(parts, []) == []
    assert len(model.moves) == 2  # nothing is moved for no question


def test_packing_is_proved_on_the_device_and_in_the_precision_of_the_training():
    model, seen = Model(), []

    @contextmanager
    def precision():
        seen.append("precision")
        yield
        seen.append("left")

    def check(rows, pad_id):
        seen.append((rows, pad_id, model.where))
        return 0.0

    parts: Any = SimpleNamespace(
        cfg=SimpleNamespace(trainer=SimpleNamespace(strategy="auto")),
        device=torch.device("cuda"),
        trainer=SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=precision)),
        module=SimpleNamespace(model=model, forward_pass=SimpleNamespace(check_packing=check)),
        datamodule=SimpleNamespace(
            batches=lambda _: SimpleNamespace(fixed=[[[3], [1, 0]]]),
            plan=SimpleNamespace(batching="packed"),
            encoded={"train": ["a", "b"]},
            pad_id=7,
        ),
    )
    fit.prove_packing(parts)
    assert seen == ["precision", (["b", "a"], 7, "cuda"), "left"]
    assert model.moves == ["cuda", "cpu"]


def test_prove_refuses_a_device_without_float64():
    cfg: Any = SimpleNamespace(prove=SimpleNamespace(steps=20))
    module = SimpleNamespace(model=SimpleNamespace(device=torch.device("mps")))
    nothing: Any = None
    with pytest.raises(
        UserError, match=r"prove.steps=20: computes in float64, which MPS lacks; use trainer=cpu, or set it to 0"
    ):
        prove._referee(cfg, nothing, nothing, module)
