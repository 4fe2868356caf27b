"""bitsandbytes' AdamW, paging where it cannot be, and the plateau schedule by hand."""

import logging
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from llmft.models import optimizer
from llmft.models.schedule import plateau_schedule
from llmft.utils.errors import UserError

RUN = ("data=alpaca", "data.path=sample", "data.limit=16", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0",
       "trainer.max_steps=3", "baseline=false")  # fmt: skip


def steps(made, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.clone()
        made.step()
    return parameter.detach().clone()


def test_32_bits_are_adamw_and_8_bits_nearly(load):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 128, generator=generator)
    gradients = [torch.randn(64, 128, generator=generator) for _ in range(5)]
    settings = {"lr": 1e-2, "weight_decay": 0.1, "betas": [0.9, 0.999]}
    ends = []
    for bits in (None, 32, 8):
        parameter = torch.nn.Parameter(start.clone())
        if bits is None:
            made = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.1, betas=(0.9, 0.999))
        else:
            made = instantiate(load("optim=adamw_8bit").optim)([parameter], **settings, bits=bits)
        ends.append(steps(made, parameter, gradients))
        if bits == 8:
            assert made.state[parameter]["state1"].dtype == torch.uint8
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)
    moved = (ends[0] - start).abs().mean()
    assert 0 < (ends[2] - ends[0]).abs().mean() < 0.1 * moved


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_paging_is_refused_where_there_is_nothing_to_page(accelerator, load, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"optim.paged=true: paging moves memory between a CUDA GPU and the CPU.*optim.fallback=true"):  # fmt: skip
        check(load("optim=paged_adamw", f"trainer.accelerator={accelerator}"), TrainConfig)
    check(load("optim=paged_adamw", "optim.fallback=true", f"trainer.accelerator={accelerator}"), TrainConfig)


def test_a_gpu_can_page(load, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check(load("optim=paged_adamw"), TrainConfig)
    with pytest.raises(UserError, match=r"trainer.accelerator is cpu"):
        check(load("optim=paged_adamw", "trainer=cpu"), TrainConfig)


def test_a_fallback_is_logged(load, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, logger=optimizer.log.name):
        made = instantiate(load("optim=paged_adamw", "optim.fallback=true").optim)([torch.nn.Parameter(torch.ones(2))])
    assert "paging is off" in caplog.text
    assert not made.is_paged


@pytest.fixture
def paging(monkeypatch):
    """A machine that can page, as far as bitsandbytes can see: buffers in memory of the CPU, and the kernels of the CPU."""

    def buffer(_, p, dtype=torch.float32):
        made: Any = torch.zeros_like(p, dtype=dtype)
        made.is_paged = p.numel() >= 1e5
        return made

    monkeypatch.setattr(optimizer, "cannot_page", lambda: None)
    monkeypatch.setattr("bitsandbytes.functional.prefetch_tensor", lambda *_, **__: None)
    monkeypatch.setattr(optimizer.paged_adamw(), "get_state_buffer", buffer)


@pytest.mark.usefixtures("paging")
@pytest.mark.parametrize("bits", [8, 32])
def test_moments_of_a_checkpoint_are_paged_again_and_compute_the_same(bits, load, tmp_path):
    def make():
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(400, 256)), torch.nn.Parameter(torch.randn(8, 8))]
        return instantiate(load("optim=paged_adamw").optim)(parameters, bits=bits, lr=1e-2), parameters

    def train(made, parameters, seeds):
        for seed in seeds:
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            made.step()

    straight, expected = make()
    train(straight, expected, range(2))
    file = tmp_path / "state.ckpt"
    torch.save({"optimizer": straight.state_dict(), "weights": [p.detach() for p in expected]}, file)
    assert straight.state[expected[0]]["state1"].is_paged
    train(straight, expected, range(2, 4))

    saved = torch.load(file, weights_only=True)
    resumed, parameters = make()
    for parameter, weight in zip(parameters, saved["weights"], strict=True):
        parameter.data.copy_(weight)
    resumed.load_state_dict(saved["optimizer"])
    assert "state1" not in resumed.state[parameters[0]]  # Lightning moves to the GPU what is there
    again = resumed.state_dict()["state"][0]["__bnb_optimizer_quant_state__"]  # saved before the first step
    assert torch.equal(again["state1"], saved["optimizer"]["state"][0]["__bnb_optimizer_quant_state__"]["state1"])
    assert not hasattr(again["state1"], "is_paged")
    resumed.load_state_dict(saved["optimizer"])
    train(resumed, parameters, range(2, 4))
    assert [resumed.state[p]["state1"].is_paged for p in parameters] == [True, False]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, expected, strict=True))


def test_a_plateau_lowers_the_learning_rate_by_hand():
    made = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = plateau_schedule(made, name="plateau", factor=0.5, patience=2, total_steps=9)
    rates = []
    for loss in (3.0, 2.0, 2.5, 2.0, 2.1, 1.9, 3.0, 3.0, 3.0):  # 2.0 again is no better loss
        schedule.step(loss)
        rates.append(made.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.slow
def test_a_run_with_8_bits_and_a_plateau(llmft, tmp_path):
    import csv

    code, _, err = llmft("model=tiny_gpt2", "peft=none", "optim=adamw_8bit", "scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5",
                         "optim.lr=1.0", "trainer.log_every_n_steps=1", "callbacks.nan_guard.explode_steps=9", *RUN, "output_dir=run")  # fmt: skip
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    losses, rates = ([float(row[name]) for row in rows if row[name]] for name in ("train/loss", "train/lr"))
    assert losses[1] > losses[0]  # a learning rate of 1 makes it worse at once
    assert rates == [1.0, 1.0, 0.5]
