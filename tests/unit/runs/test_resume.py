"""Other data than a run began with are refused by name."""

import pytest

from llmft.runs.resume import check_data
from llmft.utils.errors import UserError

OLD = {"data": {"sha256": "a" * 64, "files": {"data.path": "b" * 64, "data.extra_val.law": "c" * 64}}}


@pytest.mark.parametrize(
    ("record", "digests", "said"),
    [
        (
            OLD,
            {"data.path": "b" * 64, "data.extra_val.law": "d" * 64},
            "data.extra_val.law: has changed .*dddddddddddd",
        ),
        (OLD, {"data.path": "d" * 64, "data.extra_val.law": "c" * 64}, "data.path: has changed .*then bbbbbbbbbbbb"),
        ({"data": {"sha256": "a" * 64}}, {"data.path": "d" * 64}, "data.path=x: has changed .*then aaaaaaaaaaaa"),
    ],
)
def test_the_file_that_has_changed_is_named(record, digests, said):
    with pytest.raises(UserError, match=said):
        check_data("x", "e" * 64, record, digests)


def test_the_same_data_and_a_run_without_a_digest_are_accepted():
    check_data("x", "a" * 64, OLD, OLD["data"]["files"])
    check_data("x", "a" * 64, {}, {"data.path": "d" * 64})
