"""Names of the metrics of several validation sets."""

import pytest

from llmft.models.module import validation_names


@pytest.mark.parametrize(
    ("loaders", "names"),
    [
        ("a loader", ["val"]),
        ({"val": 1, "val/law": 2, "med": 3}, ["val", "val/law", "val/med"]),
        ([1, 2, 3], ["val", "val/1", "val/2"]),
        ([1], ["val"]),
    ],
)
def test_the_first_set_is_val_and_the_others_have_names(loaders, names):
    assert validation_names(object() if loaders == "a loader" else loaders) == names
