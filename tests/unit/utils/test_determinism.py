"""``trainer.deterministic``: what is set when, and put back."""

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from llmft.callbacks.trainer_check import TrainerCheck
from llmft.commands import train
from llmft.generation.decoder import Decoder
from llmft.utils import determinism

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def flags():
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for name in determinism.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    with determinism.kept_flags():
        yield


def trainer(deterministic, accelerator="auto"):
    return SimpleNamespace(deterministic=deterministic, accelerator=accelerator)


@pytest.mark.parametrize(
    ("given", "accelerator", "gpus", "wanted"),
    [
        ("auto", "cpu", 1, "warn"),
        ("auto", "auto", 0, "warn"),
        ("auto", "mps", 0, "warn"),
        ("auto", "auto", 1, False),
        ("auto", "gpu", 1, False),
        (True, "gpu", 1, True),
        (True, "cpu", 0, True),
        ("warn", "gpu", 1, "warn"),
        (False, "cpu", 0, False),
    ],
)
def test_auto_is_exact_on_a_cpu_and_fast_on_a_gpu(given, accelerator, gpus, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    assert determinism.resolved(trainer(given, accelerator)) is wanted


@pytest.mark.parametrize("given", ["auto", "warn", False, True])
def test_only_true_sets_what_cuda_reads_once(given, caplog):
    determinism.prepare(OmegaConf.create({"trainer": {"deterministic": given}}))
    found = {name: os.environ.get(name) for name in determinism.ENVIRONMENT}
    exact = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
    assert found == (exact if given is True else dict.fromkeys(exact))
    assert not caplog.messages


def test_a_process_that_has_used_cuda_is_warned(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with caplog.at_level(logging.WARNING):
        cfg = OmegaConf.create({"trainer": {"deterministic": True}})
        determinism.prepare(cfg)
        determinism.prepare(cfg)  # the next job of a sweep: set in time
    (message,) = caplog.messages
    assert "start it with CUBLAS_WORKSPACE_CONFIG=:4096:8" in message


def test_the_environment_is_set_before_the_gpu_is_asked(load, monkeypatch, tmp_path):
    seen = []

    def ask(*_, **__):
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        raise StopIteration

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "check", ask)
    cfg = load("model=tiny_llama", "data=alpaca", "data.path=sample", "trainer.deterministic=true", "output_dir=run")
    with pytest.raises(StopIteration):
        train._checked(cfg, [], is_sweep=False)
    assert seen == [":4096:8"]


@pytest.mark.parametrize("warn_only", [False, True])
def test_flags_are_lifted_on_a_gpu_only_and_put_back(warn_only):
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    with determinism.lifted(CPU):
        assert flags() == (True, warn_only)
    with determinism.lifted(GPU):
        assert flags() == (False, False)
    assert flags() == (True, warn_only)
    with pytest.raises(KeyError), determinism.lifted(GPU):
        raise KeyError
    assert flags() == (True, warn_only)


def test_a_process_without_flags_gets_none():
    torch.use_deterministic_algorithms(False)
    with determinism.lifted(GPU):
        assert flags() == (False, False)
    assert flags() == (False, False)


@pytest.mark.parametrize(("device", "inside"), [(CPU, (True, False)), (GPU, (False, False))])
def test_answering_lifts_them(device, inside):
    decoder: Any = Decoder.__new__(Decoder)
    decoder.model, decoder.adapter, decoder.precision = torch.nn.Linear(1, 1), True, None
    decoder.model.device = device
    torch.use_deterministic_algorithms(True)
    with decoder.inference():
        assert flags() == inside
    with pytest.raises(KeyError), decoder.inference():
        raise KeyError
    assert flags() == (True, False)


def test_a_trainer_that_is_less_deterministic_is_refused(load_config):
    other: Any = SimpleNamespace(
        precision="32-true", accumulate_grad_batches=1, world_size=1, gradient_clip_val=None, callbacks=[],
        _accelerator_connector=SimpleNamespace(),
    )  # fmt: skip

    def faults(wanted):
        check = TrainerCheck(
            load_config(
                "trainer=cpu",
                "trainer.precision=32-true",
                f"trainer.deterministic={wanted}",
                "callbacks.gradient_clipping=null",
            )
        )
        return list(check.faults(other))

    torch.use_deterministic_algorithms(False)
    assert faults("true") == ["deterministic=None: pass deterministic=True"]
    assert faults("auto") == ["deterministic=None: pass deterministic='warn'"]
    assert faults("false") == []
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert faults("true") == ["deterministic='warn': pass deterministic=True"]
    assert faults("auto") == faults("warn") == faults("false") == []
    torch.use_deterministic_algorithms(True)
    assert faults("true") == faults("auto") == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_is_exact_and_the_process_gets_its_flags_back(fails, llmft, monkeypatch):
    from llmft.models.module import InstructionModule

    seen, step = [], InstructionModule.training_step

    def noted(self, batch, batch_idx):
        seen.append((*flags(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))
        if fails:
            raise KeyError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(InstructionModule, "training_step", noted)
    torch.use_deterministic_algorithms(False)
    run = (
        "model=tiny_llama",
        "data=alpaca",
        "data.path=sample",
        "data.limit=12",
        "trainer.fast_dev_run=true",
        "trainer=cpu",
    )
    code, _, err = llmft(*run, "trainer.deterministic=true", "callbacks.progress=null", "output_dir=run")
    assert code == int(fails), err
    assert seen == [(True, False, ":4096:8")]
    assert flags() == (False, False)
