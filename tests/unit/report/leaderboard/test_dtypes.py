"""A leaderboard says which of its runs computed in which dtype, where that differs."""

from llmft.report.leaderboard.page import notes
from llmft.report.leaderboard.ranking import Criterion
from tests.unit.report.leaderboard.boards import group

CRITERION = Criterion("val/loss", "lower", None)


def found(*dtypes):
    return notes([group(str(n), dtypes=pair) for n, pair in enumerate(dtypes)], CRITERION, None)


def test_runs_in_different_dtypes_are_named():
    assert found(("bfloat16", "float32"), ("float32", "float32"), ("bfloat16", "float32")) == [
        "trained in different dtypes, which alone moves the third digit of a loss: 0, 2 in bfloat16; 1 in float32"
    ]
    (note,) = found(("float32", "float32"), ("float32", None))
    assert note.endswith("0 in float32; 1 in unknown")
    assert note.startswith("evaluated in different dtypes")


def test_the_same_dtype_needs_no_word():
    assert found(("bfloat16", "float32"), ("bfloat16", "float32")) == []
    assert found((None, None), (None, None)) == []
