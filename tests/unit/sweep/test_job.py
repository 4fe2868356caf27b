"""How a job ends."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from llmft.sweep.job import refused_arguments


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
