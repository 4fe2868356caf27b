"""How scores and a verdict are printed."""

import io

import pytest

from llmft.metrics.format import print_verdict, reasons
from llmft.utils.console import Console

VERDICT = {"color": "green", "headline": "Better than its base on 54 test rows.", "details": ["word " * 20]}


@pytest.mark.parametrize(("in_terminal", "lines"), [(True, 3), (False, 2)])
def test_a_terminal_wraps_between_words_and_a_file_has_whole_lines(in_terminal, lines):
    printed = io.StringIO()
    print_verdict(VERDICT, Console(file=printed, width=60, force_terminal=in_terminal, color_system=None))
    shown = printed.getvalue().rstrip().splitlines()
    assert len(shown) == lines
    assert all(line.split() in (["word"] * len(line.split()), VERDICT["headline"].split()) for line in shown)


def test_a_reason_that_all_scores_have_lists_none():
    few, none = {"reason": "4 rows: too few"}, {"reason": "no answer holds 2 words"}
    assert reasons({"loss": few, "f1": few}) == ["all scores: 4 rows: too few"]
    assert reasons({"loss": few, "f1": few, "distinct2": none}) == [
        "loss, f1: 4 rows: too few",
        "distinct2: no answer holds 2 words",
    ]
    assert reasons({"loss": {}, "f1": few}) == ["f1: 4 rows: too few"]
    assert reasons({"loss": few}) == ["loss: 4 rows: too few"]
