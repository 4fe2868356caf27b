"""``trainer.accelerator`` and ``trainer.devices`` against what the machine has."""

import pytest
import torch
from omegaconf import OmegaConf

from llmft.utils.device import check_accelerator
from llmft.utils.errors import UserError


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
