"""How a job ends."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from llmft.config import swept
from llmft.sweep import job
from llmft.sweep.job import header, refused_arguments


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "fractions.Fraction", "numerator": "x"}, "fractions.Fraction: cannot be built from its config (ValueError: Invalid literal"),
        ({"logger": {"own": {"_target_": "fractions.Fraction", "numerator": "x"}}}, "logger.own: fractions.Fraction: cannot be built"),
        ({"_target_": "llmft.utils.paths.user_path", "text": 3}, None),  # a fault of ours, which needs its traceback
    ],
)  # fmt: skip
def test_a_class_of_another_package_that_refuses_its_values(config, message):
    with pytest.raises(InstantiationException) as raised:
        instantiate(config)
    found = refused_arguments(raised.value)
    assert (found is None) == (message is None)
    assert message is None or message in str(found)
    assert refused_arguments(ValueError("another error")) is None


def test_the_header_of_a_job_has_its_number_settings_and_the_time_left(monkeypatch):
    line = ["model=tiny_gpt2", "optim.lr=1e-3,1e-4,1e-5", "peft.r=8,16"]
    monkeypatch.setenv(swept.VARIABLE, '["optim.lr", "peft.r"]')
    monkeypatch.setenv(swept.JOBS, str(swept._count(line)))
    monkeypatch.setattr(job, "DURATIONS", [])
    overrides = ["model=tiny_gpt2", "optim.lr=1e-3", "peft.r=8"]
    assert header("0", 0, overrides) == "job 0 (1 of 6): lr=1e-3, r=8"
    job.DURATIONS += [30.0, 35.0]
    assert header("2", 2, overrides) == "job 2 (3 of 6): lr=1e-3, r=8; about 2:10 left"
    assert swept._count(["optim.lr=interval(0,1)"]) == 0
    monkeypatch.setenv(swept.JOBS, "0")
    assert header("2", 2, overrides) == "job 2: lr=1e-3, r=8"
