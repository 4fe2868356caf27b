"""How a verdict is printed."""

import io

import pytest

from llmft.metrics.format import print_verdict
from llmft.utils.console import Console

VERDICT = {"color": "green", "headline": "Better than its base on 54 test rows.", "details": ["word " * 20]}


@pytest.mark.parametrize(("in_terminal", "lines"), [(True, 3), (False, 2)])
def test_a_terminal_wraps_between_words_and_a_file_has_whole_lines(in_terminal, lines):
    printed = io.StringIO()
    print_verdict(VERDICT, Console(file=printed, width=60, force_terminal=in_terminal, color_system=None))
    shown = printed.getvalue().rstrip().splitlines()
    assert len(shown) == lines
    assert all(line.split() in (["word"] * len(line.split()), VERDICT["headline"].split()) for line in shown)
