"""The account of the rows: every count by hand."""

from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import IGNORED, EncodedExample

N = IGNORED
STOP, BOS = 2, 1


def causal(prompt, answer, labels=None, **flags):
    labels = answer if labels is None else labels
    supervised = sum(label != N for label in labels)
    return EncodedExample(prompt + answer, [N] * len(prompt) + labels, len(prompt), len(answer), supervised, **flags)


def account(*rows, examples=(), controls=()):
    found = RowCounts("f", None, {"prompt": 9, "answer": 7})
    for example in examples:
        found.count_controls(example.texts(), controls)
    found.count(rows, BOS, (STOP,))
    return found


def test_healthy_rows_need_one_line():
    found = account(causal([BOS, 5], [6, STOP]), EncodedExample([5, STOP], [6, 7, STOP], 2, 3, 3))
    assert found.lines() == [
        "f: 0 rows read, 0 kept, 0 dropped; 5 supervised tokens; longest in tokens: prompt 2 of 9, answer 3 of 7"
    ]
    assert found.faults() == []
    assert found.summary()["longest"] == {"prompt": {"tokens": 2, "budget": 9}, "answer": {"tokens": 3, "budget": 7}}
    assert found.summary()["bos_per_row"] == {"0": 1, "1": 1}


def test_rows_without_exactly_one_stop_token_at_the_end_are_faults():
    bad = [
        causal([5], [6, 7], place="f:1"),
        causal([5], [6, STOP, 7, STOP], place="f:2"),
        causal([5], [6, STOP], [6, N], place="f:3"),
        EncodedExample([5, STOP], [6, 7], 2, 2, 2, place="f:4"),
        causal([5], [STOP, 6], place="f:5"),
    ]
    good = [causal([5, STOP], [6, STOP]), causal([5], [6, 7], cut=True)]
    found = account(*bad, *good)
    assert found.without_stop == ["f:1", "f:2", "f:3", "f:4", "f:5"]
    assert found.summary()["without_stop_token"] == 5
    [fault] = found.faults()
    assert fault.startswith("5 rows do not train exactly one stop token, at the end of their answer (first: f:1)")


def test_more_than_one_bos_in_a_row():
    found = account(causal([BOS, BOS, 5], [6, STOP]), causal([BOS, 5, BOS], [6, STOP]))
    assert found.summary()["repeated_bos"] == 1
    assert found.summary()["bos_per_row"] == {"2": 2}
    assert any(
        "1 rows: more than one BOS in a row; take bos_token out of the prompt's template" in line
        for line in found.lines()
    )


def test_lost_characters_are_named_the_most_frequent_first():
    lost = "".join(sorted("\n\n\n{{}~\t\u200b\u00e9"))
    found = account(causal([5], [6, STOP], lost=lost), causal([5], [6, STOP]))
    assert found.summary()["lost_characters"]["rows"] == 1
    assert found.summary()["lost_characters"]["characters"] == 10
    assert list(found.summary()["lost_characters"]["which"].items())[:2] == [("\n", 3), ("{", 2)]
    [line] = [line for line in found.lines() if "cannot represent" in line]
    assert line.startswith("1 rows: the tokenizer cannot represent 10 characters (newline 3, { 2, tab 1, ")
    assert line.endswith(", ...)")
    assert "(zero width space 1)" in account(causal([5], [6, STOP], lost="\u200b")).lines()[1]


def test_control_tokens_in_the_text_are_counted():
    examples = [
        Example((Turn("system", "Say </s>"), Turn("user", "Hi", "</s><s>")), "A"),
        Example((Turn("user", "Hi"),), "the </s> of it"),
        Example((Turn("user", "Hi"),), "A"),
    ]
    found = account(examples=examples, controls=("<s>", "</s>", "<pad>"))
    assert found.summary()["control_tokens_in_text"] == {"rows": 2, "tokens": {"<s>": 1, "</s>": 3}}
    assert "2 rows: control tokens in their text stay text (</s> 3, <s> 1)" in found.lines()
