"""What a row holds besides texts reaches the counts of ``preview``, or is refused with its place."""

import json

import pytest

from tests.conftest import chat_row, write_rows

CALL = {"function": {"name": "time", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "time"}}


def preview(llmft, tmp_path, *rows, model="tiny_llama", options=()):
    write_rows(tmp_path / "rows.jsonl", *rows)
    return llmft("preview", f"model={model}", "data.path=rows.jsonl", "preview.rows=99", "format=json", *options)


def test_the_counts_say_what_was_not_used(llmft, tmp_path):
    thinking = chat_row("Q3", "A3")
    thinking["messages"][1]["reasoning_content"] = "because"
    timed = chat_row("Q4", "A4")
    timed["messages"][0]["at"] = "noon"
    rows = (
        chat_row("Q0", "A0"), {**chat_row("Q1", "A1"), "tools": [TOOL], "source": "x"}, {**chat_row("Q2", "A2"), "label": False},
        thinking, timed, {**chat_row("Q5", "A5"), "weight": 0},
    )  # fmt: skip
    code, out, err = preview(llmft, tmp_path, *rows)
    assert code == 0, err
    *examples, counts = map(json.loads, out.splitlines())
    assert [example["place"] for example in examples] == [f"rows.jsonl:{n}" for n in (1, 2, 4, 5)]
    assert (counts["rows"], counts["kept"], counts["dropped"]) == (6, 4, {"label false": 1, "weight 0": 1})
    assert counts["ignored_fields"] == {"rows": 2, "fields": {"source": 1, "messages[].at": 1}}
    assert counts["left_out_by_template"] == {"tools": 1, "reasoning": 1}
    code, out, err = preview(llmft, tmp_path, *rows, options=("format=text",))
    assert code == 0, err
    assert "ignored fields: source, messages[].at (in 2 rows)" in out
    assert "not in the prompt template, so not trained on: tools of 1 rows, reasoning of 1 rows" in out


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
@pytest.mark.parametrize("at", ["context", "answer"])
def test_a_call_that_no_template_can_write_is_refused_with_its_place(model, at, llmft, tmp_path):
    question, answer = chat_row("Q", "A")["messages"]
    calls = [question, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    turns = calls if at == "answer" else [*calls, {"role": "tool", "content": "12:00"}, answer]
    code, _, err = preview(llmft, tmp_path, chat_row("Q", "A"), {"messages": turns}, model=model)
    assert code == 2
    assert "rows.jsonl:2: " in err
    assert "tool_calls" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_an_answer_of_weight_zero_leaves_nothing_to_learn(model, llmft, tmp_path):
    untrained = chat_row("Q", "A")
    untrained["messages"][1]["weight"] = 0
    twice = {**chat_row("Q", "A"), "weight": 2}
    code, out, err = preview(llmft, tmp_path, twice, untrained, model=model, options=("data.split.val=0",))
    assert code == 0, err
    row, counts = map(json.loads, out.splitlines())
    assert counts["dropped"] == {"nothing to learn": 1}
    assert {w for w, trained in zip(row["weights"], row["trained"], strict=True) if trained} == {2.0}
