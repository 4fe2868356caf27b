"""Short names of settings."""

import pytest

from llmft.config.setting_names import label, short_names, short_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e-3, "1e-3"),
        (0.008231433730995547, "8.23e-3"),
        (0.06370173320348284, "0.0637"),
        (1e-10, "1e-10"),
        (0.0, "0.0"),
        (250000.0, "2.5e5"),
        (1234.5, "1234"),
        (8, "8"),
        (True, "true"),
        (None, "null"),
        ("x" * 50, "x" * 39 + "…"),
    ],
)
def test_a_value_has_three_digits(value, shown):
    assert short_value(value) == shown


def test_a_name_is_as_long_as_it_must_be():
    keys = ["model.name", "optim.lr", "peft.r", "data.batch_size", "evaluate.batch_size"]
    assert list(short_names(keys).values()) == ["model", "lr", "r", "data.batch_size", "evaluate.batch_size"]
    assert label({"model.name": "tiny_t5", "optim.lr": 1e-3}, keys[:2]) == "model=tiny_t5, lr=1e-3"
