"""What is packed for a machine with a GPU and without a network."""

import importlib
import zipfile

import pytest

from tests.conftest import ROOT


@pytest.fixture
def wheels(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu_wheels")


def test_torch_and_what_the_machine_has_stay_away(wheels):
    pins = ["torch==2.13.0", "torchmetrics==1.9.0", "nvidia-nccl-cu13==2.30.7", "triton==3.8.0", "rouge_score==0.1.2"]
    pins += ["PyYAML==6.0.3", "huggingface_hub==2.4.0", "cuda-toolkit==13.0.3", "lightning==2.6.6"]
    kept = ["PyYAML==6.0.3", "huggingface_hub==2.4.0", "lightning==2.6.6", "torchmetrics==1.9.0"]
    assert wheels.carried(pins, ()) == kept
    assert wheels.carried(pins, ("pyyaml", "huggingface-hub")) == kept[2:]


def test_bitsandbytes_keeps_one_cuda_version(wheels, tmp_path):
    wheel = tmp_path / "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl"
    names = [
        "bitsandbytes/__init__.py",
        *(f"bitsandbytes/libbitsandbytes_{one}.so" for one in ("cpu", "cuda128", "cuda130")),
    ]
    with zipfile.ZipFile(wheel, "w") as file:
        for name in names:
            file.writestr(name, name)
    wheels.of_one_cuda(wheel, "130")
    with zipfile.ZipFile(wheel) as file:
        assert file.namelist() == [names[0], names[1], names[3]]
        assert file.read(names[3]).decode() == names[3]
    assert list(tmp_path.iterdir()) == [wheel]


def test_what_a_machine_lacks_is_named(wheels):
    assert wheels.unmet(["pytest>=1", "pytest<1", "a-package-of-2030>=3"]) == [
        f"pytest<1, found {pytest.__version__}",
        "a-package-of-2030>=3, found none",
    ]
