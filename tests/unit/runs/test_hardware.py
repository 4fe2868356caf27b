"""A run that goes on on other hardware: what auto chose is chosen again, what the user asked for stays, one line says so."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from llmft.config.auto_values import Choice, auto_choices
from llmft.models.architecture_check import check_flash
from llmft.runs import hardware, resume
from llmft.runs.directory import RunDirectory
from llmft.runs.open import completed
from llmft.runs.record import write_record
from tests.conftest import typed_config

GPU = {
    "model.attention": "flash",
    "model.padding": "skipped",
    "model.liger": True,
    "trainer.precision": "bf16-mixed",
    "peft.compute_dtype": "bfloat16",
}
RECORD = {
    "hardware": "NVIDIA H200 (9, 0)",
    "performance": [{"key": key, "value": value, "why": "a GPU"} for key, value in GPU.items()],
}


@pytest.fixture
def stored(load):
    """The config of a training on a GPU."""
    cfg = load("model=smollm2_135m", "peft=qlora", "output_dir=run")
    OmegaConf.set_struct(cfg, False)
    for key, value in GPU.items():
        OmegaConf.update(cfg, key, value)
    return cfg


def plain(cfg):
    return {key: OmegaConf.select(cfg, key) for key in GPU}


@pytest.mark.parametrize("began", [RECORD["hardware"], None])
def test_what_auto_chose_for_a_gpu_is_chosen_again_on_a_cpu(stored, began):
    hardware.choose_again(stored, RECORD | {"hardware": began})
    assert set(plain(stored).values()) == {"auto"}
    config = typed_config(completed(stored))
    found = config.replaced({choice.key: choice.value for choice in auto_choices(config)})
    assert (found.model.attention, found.model.liger, found.trainer.precision) == ("sdpa", False, "32-true")
    check_flash(found)


def test_what_was_asked_for_stays(stored):
    asked = {"performance": [choice for choice in RECORD["performance"] if choice["key"] != "trainer.precision"]}
    stored.model.attention = "sdpa"  # in a resume before this one
    hardware.choose_again(stored, RECORD | asked)
    assert plain(stored) == dict.fromkeys(GPU, "auto") | {"model.attention": "sdpa", "trainer.precision": "bf16-mixed"}


def test_on_the_same_hardware_everything_stays(stored, monkeypatch):
    monkeypatch.setattr(hardware, "hardware_of", lambda _: RECORD["hardware"])
    for module in (hardware.flash, hardware.liger):
        monkeypatch.setattr(module, "unavailable", lambda: None)
    hardware.choose_again(stored, RECORD)
    assert plain(stored) == GPU
    monkeypatch.setattr(hardware.liger, "unavailable", lambda: "it was uninstalled")
    hardware.choose_again(stored, RECORD)
    assert set(plain(stored).values()) == {"auto"}


@pytest.mark.parametrize(
    ("began", "said"),
    [
        ("A100", "hardware has changed since the run began, so results may differ: A100 -> H200; model.attention flash -> sdpa"),
        ("H200", "settings have changed since the run began, so results may differ: model.attention flash -> sdpa"),
        ("no change", ""),
    ],
)  # fmt: skip
def test_one_line_says_what_is_not_as_it_was(tmp_path, monkeypatch, caplog, began, said):
    monkeypatch.setattr(hardware, "hardware_of", lambda _: "H200")
    run = RunDirectory(tmp_path)
    run.record = RECORD | {"hardware": began if said else "H200"}
    now = {**GPU, "trainer.precision": "32-true"}  # asked for in this resume
    cfg: Any = SimpleNamespace(trainer=None, select=now.get)
    with caplog.at_level(logging.INFO):
        assert hardware.record_choices(run, cfg, [Choice("model.attention", "sdpa" if said else "flash", "?")]) is bool(
            said
        )
    assert caplog.text.rpartition("differ:")[2].strip() == said.rpartition("differ:")[2].strip()
    assert caplog.messages == ([said] if said else [])
    assert run.record["hardware"] == "H200"
    kept = [choice["key"] for choice in run.record["performance"]]
    assert kept == ["model.padding", "model.liger", "peft.compute_dtype", "model.attention"]


@pytest.mark.parametrize("accelerator", ["trainer=cpu", "trainer.accelerator=cpu"])
def test_a_resume_may_name_another_device_and_what_it_computes_with(stored, tmp_path, load, accelerator):
    stored.trainer.accelerator = "gpu"
    OmegaConf.save(stored, tmp_path / "config.yaml")
    write_record(tmp_path, RECORD)
    overrides = [accelerator, "trainer.precision=32-true", "model.attention=sdpa"]
    found = resume.resumed(load(*overrides, f"resume={tmp_path}", f"output_dir={tmp_path}"), overrides)
    assert (found.trainer.accelerator, found.trainer.precision, found.model.attention) == ("cpu", "32-true", "sdpa")
    assert found.model.liger == "auto"
    for override in ("trainer=ddp", "trainer.precision=16-mixed", "trainer.devices=2"):
        with pytest.raises(resume.UserError, match="the run has"):
            resume.resumed(load(override, f"resume={tmp_path}", f"output_dir={tmp_path}"), [override])
