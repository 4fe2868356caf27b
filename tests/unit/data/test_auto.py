"""``data.path=FILE`` alone: the data set that the rows need, what is said of them, and when a person must choose."""

import json
from pathlib import Path

import pytest

from llmft.data.auto import with_data_set
from llmft.utils.errors import UserError

QA = ["data=custom", "data.columns.instruction=question", "data.columns.output=answer"]
USER, REPLY = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*rows: object, name: str = "rows.jsonl") -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return f"data.path={name}"


def added(*arguments: str, command: str = "train") -> list[str]:
    return [argument for argument in with_data_set(command, arguments) if argument not in arguments]


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"messages": [USER, REPLY]}, ["data=academic"]),
        ({"instruction": "I", "output": "O"}, ["data=alpaca"]),
        ({"question": "Q", "answer": "A"}, QA),
        ({"Question": "Q", "Answer": "A"}, ["data=custom", "data.columns.instruction=Question", "data.columns.output=Answer"]),
        ({"question": "Q", "answer": 4}, [*QA, "data.coerce=true"]),
        (
            {"instruction": "I", "context": "C", "response": "R", "category": "x"},
            ["data=custom", "data.columns.instruction=instruction", "data.columns.input=context", "data.columns.output=response"],
        ),
        ({"input": "I", "output": "O"}, ["data=custom", "data.columns.instruction=input", "data.columns.output=output"]),
        ({"text": "T", "label": "L"}, ["data=custom", "data.columns.instruction=text", "data.columns.output=label"]),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            ["data=custom", "data.columns.messages=conversations"],
        ),
        (
            {"prompt": [USER], "completion": [REPLY]},
            ["data=custom", "data.columns.messages=prompt", "data.columns.output=completion"],
        ),
        ({"prompt": "Q?", "chosen": [USER, REPLY], "rejected": [USER, REPLY]}, ["data=custom", "data.columns.messages=chosen"]),
        (
            {"prompt": "Q?", "chosen": [REPLY], "rejected": [REPLY]},
            ["data=custom", "data.columns.instruction=prompt", "data.columns.output=chosen"],
        ),
        ({"messages": json.dumps([USER, REPLY])}, ["data=academic"]),
    ],
)  # fmt: skip
def test_what_a_row_is_taken_for(row, options):
    assert added(write(row)) == options


def test_what_is_said(capsys):
    file = write({"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "", "rejected": "B"})
    added(file)
    assert capsys.readouterr().err == (
        "llmft: data.path=rows.jsonl: preference rows, trained on the chosen answer, rejected is not read (1 of the first 2 "
        "rows are such); the same as data=custom data.columns.instruction=prompt data.columns.output=chosen\n"
    )


@pytest.mark.parametrize("given", [["data=alpaca"], ["resume=run"], ["experiment=alpaca"], ["data.sets.a.path=x"]])
def test_a_data_set_that_was_chosen_stays(given):
    assert added(write({"question": "Q", "answer": "A"}), *given) == []


def test_where_no_file_decides():
    file = write({"question": "Q", "answer": "A"})
    assert added("trainer.max_steps=1") == added("data.path=sample") == added("data.path=no.csv") == []
    assert added("run=outputs/x", file, command="evaluate") == []
    with pytest.raises(UserError, match=r"data=auto: needs data\.path=FILE"):
        added("data=auto")


def test_data_auto_can_be_typed_and_columns_are_those_of_custom():
    file = write({"question": "Q", "answer": "A", "other": "x"})
    assert with_data_set("train", ["data=auto", file]) == [file, *QA]
    assert added(file, "data.columns.instruction=question", "data.columns.output=other") == ["data=custom"]


def test_two_readings_are_shown_and_none_is_chosen():
    with pytest.raises(UserError) as caught:
        added(write({"links": "one", "rechts": "two"}))
    assert str(caught.value).splitlines() == [
        "data.path=rows.jsonl: its rows can be read in several ways; choose one by its keys",
        "  - data=custom data.columns.instruction=links data.columns.output=rechts",
        '    prompt "one", answer "two"',
        "  - data=custom data.columns.instruction=rechts data.columns.output=links",
        '    prompt "two", answer "one"',
    ]


def test_fields_that_mean_nothing_are_listed():
    with pytest.raises(
        UserError, match="no field is known as a question, an answer or a conversation; there is x, y, z;"
    ):
        added(write({"x": "1", "y": "2", "z": "3"}))


def test_a_sweep_over_files():
    write({"question": "Q", "answer": "A"}, name="a.jsonl")
    write({"question": "Q", "answer": "B"}, name="b.jsonl")
    write({"messages": [USER, REPLY]}, name="c.jsonl")
    assert added("data.path=a.jsonl,b.jsonl") == QA
    with pytest.raises(UserError, match="the files of the sweep need different data sets"):
        added("data.path=a.jsonl,c.jsonl")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "A long text."}, "text"),
        ({"id": "1", "text": "A long text."}, "text"),
        ({"text": "A long text.", "source": "web"}, "text"),
        ({"title": "T", "content": "A long text.", "url": "u"}, "content"),
    ],
)
def test_a_text_without_question_and_answer_is_no_row(row, text):
    with pytest.raises(UserError, match=rf"its field {text} is a text without a question and an answer \(there is "):
        added(write(row))


def test_a_text_beside_a_label_is_a_question():
    assert added(write({"id": "1", "text": "T", "label": "L"})) == [
        "data=custom",
        "data.columns.instruction=text",
        "data.columns.output=label",
    ]


def test_a_field_that_names_the_split(capsys):
    file = write({**(row := {"question": "Q", "answer": "A"}), "split": "train"}, {**row, "split": "validation"})
    assert added(file) == [*QA, "data.split_by=column:split"]
    assert ", split by their field split (" in capsys.readouterr().err
    assert added(file, "data.split_by=prompt") == added(file, "data.streaming=true") == QA
    assert added(write({**row, "split": "train"}, {**row, "split": "other"})) == QA


def test_a_pinned_delimiter_and_encoding_are_those_of_the_first_rows():
    Path("rows.csv").write_bytes("frage;grund, prüfung\nx;1, 2\n".encode("cp850"))
    found = added("data.path=rows.csv", "data.delimiter=';'", "data.encoding=cp850")
    assert found == ["data=custom", "data.columns.instruction=frage", 'data.columns.output="grund, prüfung"']
    assert added("data.path=rows.csv", "data.encoding=nonsense") == []  # the checks of all values say so
