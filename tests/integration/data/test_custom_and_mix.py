"""Any columns without code, and several sets at once."""

import csv
import json
from collections import Counter

import pytest

from tests.conftest import chat_row, write_rows

COMMON = ("preview", "model=tiny_gpt2", "prompt=plain", "format=json", "preview.rows=null")


def lines(out):
    *rows, account = [json.loads(line) for line in out.splitlines()]
    return rows, account


SHAREGPT = {
    "conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
}
PARTS = {"talk": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "!"}]},
                  {"role": "assistant", "content": "A"}], "n": 7}  # fmt: skip
CASES = {
    "flat": ({"q": "Q", "ctx": "C", "a": "A", "n": 7}, "{instruction: q, input: ctx, output: a}", "Q\n\nC\n"),
    "no input": ({"q": "Q", "ctx": None, "a": "A", "n": 7}, "{instruction: q, input: ctx, output: a, id: n}", "Q\n"),
    "a system line": ({"q": "Q", "s": "S", "a": "A", "n": 7}, "{instruction: q, output: a, system: s}", "S\n\nQ\n"),
    "ShareGPT": (SHAREGPT, "{messages: conversations}", "S\n\nQ\n"),
    "content in parts": (PARTS, "{messages: talk}", "Q!\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_columns(llmft, tmp_path, name):
    row, columns, prompt = CASES[name]
    write_rows(tmp_path / "rows.jsonl", row, row)
    code, out, err = llmft(
        *COMMON, "data=custom", "data.path=rows.jsonl", "data.split.val=0", f"data.columns={columns}"
    )
    assert code == 0, err
    first, _ = lines(out)[0]
    assert (first["prompt"], first["answer"], first["source"]) == (prompt, "A", "custom")


def test_a_table_without_code(llmft, tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["q", "a"], ["one?", "1,\n2"], ["two?", "3"]])
    code, out, err = llmft(*COMMON, "data=custom", "data.path=rows.csv", "data.columns={instruction: q, output: a}")
    assert code == 0, err
    assert [(row["place"], row["answer"]) for row in lines(out)[0]] == [("rows.csv:2", "1,\n2"), ("rows.csv:4", "3")]


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"q": "Q", "a": "A"}, "{instruction: q}", "data.columns: 1 fault\n  - must name instruction and output"),
        ({"q": "Q", "a": "A"}, "{instruction: q, output: b}", "rows.jsonl:1: data.columns.output=b: no such field; there is q, a"),
        ({"question": "Q", "a": "A"}, "{instruction: qestion, output: a}", "Did you mean data.columns.instruction=question?"),
        ({"q": "Q", "a": "A"}, "{messages: q, input: b}", "input: there is no such column here; there are messages"),
        ({"q": "Q", "a": "A"}, "{question: q}", "data.columns"),
        ({"q": "Q", "a": "A"}, "{}", "; rows.jsonl has the fields q, a: data.columns.instruction=q data.columns.output=a"),
        ({"conversations": []}, "{}", "rows.jsonl has the fields conversations: data.columns.ROLE=FIELD"),
        ({"my question": "Q", "nr": 1}, "{}", "rows.jsonl has the fields my question, nr: 'data.columns.instruction=my question' data.columns.output=nr data.coerce=true or "),
        ({"m": [{"from": "bot", "value": "x"}]}, "{messages: m}", 'm[0].from: must be one of system, developer, user, assistant, tool, got "bot"'),
        ({"m": [{"from": "tool", "value": "x"}]}, "{messages: m}", 'm[0].role: must be user here, got "tool"'),
        ({"m": [{"from": "human"}]}, "{messages: m}", "m[0].value: is missing; there is from"),
        ({"m": [{"role": "user", "content": [{"type": "image_url"}]}]}, "{messages: m}", "m[0].content[0]: must be a part of type text"),
        ({"m": [{"role": "user", "content": "x"}]}, "{messages: m}", "m[0].role: the last turn must be assistant"),
        ({"m": "x"}, "{messages: m}", 'm: must be a list of turns, got "x"'),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit(llmft, tmp_path, row, columns, message):
    write_rows(tmp_path / "rows.jsonl", row)
    code, _, err = llmft(*COMMON, "data=custom", "data.path=rows.jsonl", f"data.columns={columns}")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_mix_keeps_where_each_row_is_from(llmft, tmp_path):
    write_rows(tmp_path / "chat.jsonl", *(chat_row(f"Q{n}", f"A{n}") for n in range(4)))
    write_rows(tmp_path / "flat.jsonl", *({"q": f"Q{n}", "a": f"B{n}"} for n in range(3)))
    code, out, err = llmft(
        *COMMON, "data=mix", "data.sets.keyword_qa=null", "data.sets.academic.path=chat.jsonl", "+data@data.sets.mine=custom",
        "data.sets.mine.path=flat.jsonl", "data.sets.mine.columns={instruction: q, output: a}", "data.sets.mine.system=S",
    )  # fmt: skip
    assert code == 0, err
    rows, account = lines(out)
    assert Counter(row["source"] for row in rows) == {"academic": 4, "mine": 3}
    assert [row["place"] for row in rows] == [
        *(f"chat.jsonl:{n + 1}" for n in range(4)),
        *(f"flat.jsonl:{n + 1}" for n in range(3)),
    ]
    assert {row["prompt"][:2] for row in rows if row["source"] == "mine"} == {"S\n"}
    assert account["source"] == "chat.jsonl + flat.jsonl"
    assert (account["rows"], account["kept"]) == (7, 7)


def test_weights_say_how_often_a_row_is_trained(encoded, tmp_path):
    write_rows(tmp_path / "a.jsonl", *(chat_row(f"Q{n}", f"A{n}") for n in range(200)))
    write_rows(tmp_path / "b.jsonl", *({"question": f"Q{n}", "answer_keywords": ["k"]} for n in range(10)))
    options = (
        "model=tiny_gpt2", "data=mix", f"data.sets.academic.path={tmp_path / 'a.jsonl'}", f"data.sets.keyword_qa.path={tmp_path / 'b.jsonl'}",
        "+data.weights.academic=0.25", "+data.weights.keyword_qa=3", "data.split={val: 0.1, test: 0}",
    )  # fmt: skip
    data = encoded(*options)
    val = Counter(row.place for row in data.encoded["val"])
    train = Counter(row.place for row in data.encoded["train"])
    assert set(val.values()) == {1}
    assert not set(val) & set(train)
    assert {count for place, count in train.items() if "b.jsonl" in place} == {3}
    assert {count for place, count in train.items() if "a.jsonl" in place} == {1}
    chosen = sum("a.jsonl" in place for place in train)
    there = 200 - sum("a.jsonl" in place for place in val)
    assert 0.1 * there < chosen < 0.4 * there
    again = encoded(*options)
    assert [row.place for row in again.encoded["train"]] == [row.place for row in data.encoded["train"]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("+data.weights.alpaca=2", "data.weights.alpaca: there is no such set; there are academic, keyword_qa"),
        (
            "+data.weights.academic=-1",
            "data.weights={'academic': -1}: must be a mapping of names to numbers of at least 0",
        ),
    ],
)
def test_weights_that_make_no_sense(llmft, option, message):
    code, _, err = llmft(*COMMON, "data=mix", option)
    assert code == 2
    assert message in err
