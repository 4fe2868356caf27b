"""Jobs that run next to each other take different GPUs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from llmft.sweep import job as jobs
from llmft.sweep.gpus import gpus_of, turn


def job_of(number: int, launcher: str = "joblib") -> Any:
    runtime = SimpleNamespace(choices={"hydra/launcher": launcher}, config_sources=[])
    return SimpleNamespace(job=SimpleNamespace(num=number, config_name="train"), runtime=runtime)


@pytest.fixture
def gpus(monkeypatch):
    def have(count, visible=None):
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return have


@pytest.mark.parametrize(
    ("count", "visible", "devices", "turns"),
    [
        (2, None, 1, ["0", "1", "0", "1"]),
        (3, "4,6,7", 1, ["4", "6", "7", "4"]),
        (2, "GPU-aa, GPU-bb", 1, ["GPU-aa", "GPU-bb", "GPU-aa", "GPU-bb"]),
        (5, None, 2, ["0,1", "2,3", "0,1", "2,3"]),
        (3, None, 2, [None] * 4),  # one job takes what there is
        (1, "3", 1, [None] * 4),
        (0, "", 1, [None] * 4),
    ],
)
def test_jobs_take_turns(gpus, count, visible, devices, turns):
    gpus(count, visible)
    assert [turn(number, devices) for number in range(4)] == turns


def test_only_joblib_and_only_jobs_that_may_use_a_gpu(gpus):
    gpus(2)
    config = OmegaConf.create
    assert gpus_of(config({"trainer": {"accelerator": "auto", "devices": 1}}), job_of(1)) == "1"
    assert gpus_of(config({"run": "x"}), job_of(1)) == "1"  # evaluate
    assert gpus_of(config({"trainer": {"accelerator": "cpu", "devices": 1}}), job_of(1)) is None
    assert gpus_of(config({"trainer": {"accelerator": "auto", "devices": 1}}), job_of(1, "ray")) is None


def test_the_process_of_a_job_sees_them(gpus, monkeypatch, capfd):
    gpus(2)
    seen: list[dict[str, str]] = []

    def run(*_: Any, env: dict[str, str], **__: Any) -> Any:
        seen.append(env)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr("subprocess.run", run)
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": 1}})
    for number in (0, 1):
        monkeypatch.setattr(HydraConfig, "get", lambda number=number: job_of(number))
        jobs._in_a_process(cfg, Path(f"sweep/{number}"), [])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["0", "1"]
    assert "job 1: CUDA_VISIBLE_DEVICES=1\n" in "".join(capfd.readouterr())
