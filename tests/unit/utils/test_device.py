"""``trainer.accelerator`` and ``trainer.devices`` against what the machine has; copies from and to a device."""

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import MPSAccelerator
from omegaconf import OmegaConf

from llmft.callbacks.trainer_check import TrainerCheck
from llmft.utils.device import announced_device, check_accelerator, floats, tf32, to_device
from llmft.utils.errors import UserError
from tests.conftest import ROOT
from tests.support.accelerators import is_gpu_asked_for


@pytest.mark.parametrize(
    ("accelerator", "devices", "there", "message"),
    [
        ("gpu", 1, 0, "trainer.accelerator=gpu: .*; use trainer=cpu, or trainer.accelerator=auto"),
        ("cuda", 1, 0, "trainer.accelerator=cuda: "),
        ("mps", 1, 4, "trainer.accelerator=mps: torch finds no GPU on this machine"),
        ("gpu", 4, 2, "trainer.devices=4: this machine has 2 GPUs; lower it, or use trainer=cpu"),
        ("gpu", 2, 2, None),
        ("auto", 4, 0, None),
        ("cpu", 4, 0, None),
    ],
)
def test_a_gpu_that_is_not_there(accelerator, devices, there, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    trainer = OmegaConf.create({"accelerator": accelerator, "devices": devices})
    if message is None:
        check_accelerator(trainer)
    else:
        with pytest.raises(UserError, match=message):
            check_accelerator(trainer)


@pytest.mark.parametrize(
    ("marks", "asked"),
    [
        ("", False),
        ("not slow and not gpu and not network and not real", False),
        ("slow", False),
        ("not slow", False),
        ("guarantees", False),
        ("gpu", True),
        ("slow or gpu", True),
        ("gpu and slow", True),
        ("gpu and not slow", True),
    ],
)
def test_a_gpu_is_hidden_unless_its_tests_are_asked_for(marks, asked):
    assert is_gpu_asked_for(marks) is asked


def test_no_test_and_no_process_that_it_starts_sees_a_gpu(pytestconfig):
    if is_gpu_asked_for(pytestconfig.option.markexpr):
        pytest.skip("tests on a GPU were asked for")
    assert not torch.cuda.is_available()
    assert not MPSAccelerator.is_available()
    code = "import os; print([os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'DISABLE_MPS')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['', '1']"


@pytest.mark.parametrize(
    ("precision", "before", "inside"),
    [
        ("bf16-mixed", "highest", "high"),
        ("16-mixed", "highest", "high"),
        ("32-true", "highest", "highest"),
        ("32-true", "high", "high"),  # set by the process that calls llmft
        ("bf16-mixed", "medium", "medium"),
    ],
)
def test_tf32_under_autocast_only_and_only_for_the_training(precision, before, inside):
    try:
        torch.set_float32_matmul_precision(before)
        with tf32(precision):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == before
        cfg: Any = OmegaConf.create({"trainer": {"precision": precision}})
        trainer: Any = None
        check = TrainerCheck(cfg)
        for end in (
            lambda: check.teardown(trainer, None, "fit"),
            lambda: check.on_exception(trainer, None, KeyboardInterrupt()),
        ):
            check.setup(trainer, None, "fit")
            assert torch.get_float32_matmul_precision() == inside
            end()
            assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_scalars_are_read_as_floats_whatever_their_dtype():
    assert floats(torch.tensor(1.5), torch.tensor(2**53), torch.tensor(0.1, dtype=torch.float64)) == [1.5, 2.0**53, 0.1]
    assert floats() == []


def test_inner_mappings_of_a_batch_are_moved_too():
    moved = to_device({"ids": torch.ones(2), "layout": {"index": torch.ones(1), "full": True}, "places": ["a"]}, "meta")
    assert (moved["ids"].device.type, moved["layout"]["index"].device.type) == ("meta", "meta")
    assert (moved["layout"]["full"], moved["places"]) == (True, ["a"])


def test_a_gpu_that_nobody_asked_for_is_named(monkeypatch, caplog):
    with caplog.at_level("INFO"):
        assert announced_device() == torch.device("cpu")
        assert not caplog.messages
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
        assert announced_device() == torch.device("cuda")
    assert caplog.messages == ["device: H200 (CUDA_VISIBLE_DEVICES= before the command keeps it on the CPU)"]


# Where tensors are made float64, and why none of them is on an Apple GPU, which has no float64.
FLOAT64 = {
    "evaluation/retention/divergence.py": "of kept tokens, which are on the CPU",
    "evaluation/row_loss.py": "after .cpu()",
    "generation/sampling.py": "on a CPU only; elsewhere integers",
    "models/attention/packing.py": "a tolerance by dtype; no tensor is made",
    "models/loss.py": "sums on the CPU, to which float64() adds",
    "models/module.py": "numbers on the CPU",
    "utils/device.py": "float64() itself",
}


def test_every_float64_is_where_it_exists():
    root = ROOT / "src" / "llmft"
    files = {str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in root.rglob("*.py")}
    found = {name for name, text in files.items() if re.search(r"\.double\(\)|torch\.float64", text)}
    # the referee computes in float64, and prove refuses MPS
    assert {name for name in found if not name.startswith("referee/")} == set(FLOAT64)
