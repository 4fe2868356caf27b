"""Splits follow the rows: the same for every model, fields that name them, files of their own."""

import json

import pytest

from llmft.data.eval_rows import first_rows
from llmft.utils.errors import UserError
from tests.conftest import chat_row, write_rows


def prompts(data):
    return {name: {e.context[-1].content for e in data.examples_of(name)} for name in ("train", "test", "val")}


def rows_of(*numbers, **more):
    return [{"instruction": f"Question {n}" + " long" * (n % 3) * 9, "output": f"Answer {n}", **more} for n in numbers]


@pytest.fixture
def custom(module, tmp_path):
    columns = ("data=custom", "data.columns.instruction=instruction", "data.columns.output=output")

    def make(rows, *overrides, model="tiny_gpt2"):
        write_rows(tmp_path / "rows.jsonl", *rows)
        return module(*columns, f"model={model}", *overrides)

    return make


@pytest.mark.parametrize("split_by", ["prompt", "position"])
def test_models_that_drop_other_rows_have_the_same_test_rows(custom, split_by):
    """T5 reads 60 tokens of a prompt and GPT-2 100: T5 drops a third of the rows, and no other row changes its split."""
    rows = rows_of(*range(60))
    split = (f"data.split_by={split_by}", "data.split={test: 0.2, val: 0.2}")
    wide = custom(rows, *split, "data.max_prompt_tokens=200")
    narrow = custom(rows, *split, "data.max_prompt_tokens=80", model="tiny_t5")
    ours, theirs = prompts(wide), prompts(narrow)
    assert narrow.row_counts.kept < wide.row_counts.kept == 60
    kept = set().union(*theirs.values())
    assert all(theirs[name] == ours[name] & kept for name in ours)
    assert {name: len(rows) for name, rows in ours.items()} == {"train": 36, "test": 12, "val": 12}


def test_equal_prompts_stay_together(custom):
    rows = [{"instruction": f"question {n % 10}", "output": f"Answer {n}"} for n in range(40)]
    data = custom(rows, "data.split_by=prompt", "data.split={test: 0.2, val: 0.2}")
    found = prompts(data)
    assert [len(found[name]) for name in ("train", "test", "val")] == [6, 2, 2]
    assert not found["train"] & (found["test"] | found["val"])


def test_a_field_names_the_split_and_another_one_keeps_rows_together(custom):
    rows = [*rows_of(*range(6), split="train"), *rows_of(6, 7, split="dev"), *rows_of(8, split="test")]
    data = custom(rows, "data.split_by=column:split")
    assert {name: len(part) for name, part in data.indices.items()} == {"train": 6, "test": 1, "val": 2}
    assert not data.row_counts.ignored  # the field is used
    by_user = custom([row for n in range(8) for row in rows_of(n, n + 10, user=n)], "data.split_by=group:user")
    users = {name: {int(p.split()[1]) % 10 for p in part} for name, part in prompts(by_user).items()}
    assert users["val"]
    assert not users["val"] & users["train"]


def test_a_split_that_no_row_names_is_taken_from_the_rows_named_train(custom):
    rows = [*rows_of(*range(10), split="train"), *rows_of(10, 11, split="test")]
    data = custom(rows, "data.split_by=column:split", "data.split={train: 0.5, val: 0.2, test: 0.5}")
    assert {name: len(part) for name, part in data.indices.items()} == {"train": 8, "test": 2, "val": 2}
    assert prompts(data)["test"] == {row["instruction"] for row in rows[10:]}
    plain = custom(rows, "data.split_by=prompt", "data.split={val: 0.2, test: 0.2}")
    assert plain.row_counts.ignored == {"split": 12}


def test_lists_of_a_json_file_are_its_splits(custom, tmp_path):
    def made(names, *overrides):
        parts = dict(zip(names, (rows_of(*range(10)), rows_of(10, 11), rows_of(12)), strict=False))
        (tmp_path / "rows.json").write_text(json.dumps(parts))
        return custom([], "data.path=rows.json", *overrides)

    for split_by in ("prompt", "position"):
        data = made(("train", "valid", "test"), f"data.split_by={split_by}")
        assert {name: len(part) for name, part in data.indices.items()} == {"train": 10, "test": 1, "val": 2}
        assert [row.place for row in data.encoded["val"]] == ["rows.json:valid:1", "rows.json:valid:2"]
    data = made(("train", "test"), "data.split.val=0.1", "data.split.test=0.5")
    assert {name: len(part) for name, part in data.indices.items()} == {"train": 9, "test": 2, "val": 1}
    write_rows(tmp_path / "val.jsonl", *rows_of(100))
    with pytest.raises(
        UserError, match=r"rows\.json:valid:1: names its split, val, which data\.val_path has too; data\.val_path=null$"
    ):
        made(("train", "valid"), "data.val_path=val.jsonl")
    with pytest.raises(
        UserError, match=r"rows\.json:train:1: data\.val_path is a file of one split, but this one names its splits"
    ):
        custom(rows_of(*range(10)), "data.val_path=rows.json")
    with pytest.raises(
        UserError,
        match=r"rows\.json:train:1: names its split, which a stream does not follow; use data\.streaming=false",
    ):
        made(("train", "valid"), "data.streaming=true")
    with pytest.raises(UserError, match=r"which data\.val_path has too; data\.val_path=null, or data\.split_by=prompt"):
        custom(rows_of(*range(4), split="dev"), "data.val_path=val.jsonl", "data.split_by=column:split")


def test_a_row_without_its_field_is_invalid_at_its_place(custom):
    with pytest.raises(UserError, match=r"rows\.jsonl:2: split: must be train, val or test") as caught:
        custom([*rows_of(1, split="train"), *rows_of(2), *rows_of(3, split="train")], "data.split_by=column:split")

    assert "looks like" not in str(caught.value)  # the row is in the right format


def test_validation_and_test_rows_of_files_of_their_own(custom, tmp_path):
    write_rows(tmp_path / "val.jsonl", *rows_of(100, 101))
    write_rows(tmp_path / "test.jsonl", *rows_of(200))
    data = custom(rows_of(*range(10)), "data.val_path=val.jsonl", "data.test_path=test.jsonl")
    assert {name: len(part) for name, part in data.indices.items()} == {"train": 10, "test": 1, "val": 2}
    assert data.source.given == "rows.jsonl + val.jsonl + test.jsonl"
    part = custom(rows_of(*range(10)), "data.val_path=val.jsonl", "data.split.test=0.2")
    assert {name: len(rows) for name, rows in part.indices.items()} == {"train": 8, "test": 2, "val": 2}


@pytest.mark.parametrize("split_by", ["prompt", "shuffle"])
def test_further_validation_files_change_no_split(split_by, custom, tmp_path):
    write_rows(tmp_path / "med.jsonl", *rows_of(100, 101, 3))
    write_rows(tmp_path / "law.jsonl", *rows_of(200, 201))
    rows, options = rows_of(*range(20)), (f"data.split_by={split_by}", "data.split.test=0.2")
    alone = custom(rows, *options)
    data = custom(rows, *options, "+data.extra_val.med=med.jsonl", "+data.extra_val.law=law.jsonl")
    assert list(data.indices) == ["train", "test", "val", "val/law", "val/med"]
    for name, part in alone.indices.items():
        assert data.indices[name].tolist() == part.tolist()
    assert [row.place for row in data.encoded["val/med"]] == [f"med.jsonl:{n}" for n in (1, 2, 3)]
    assert list(data.val_dataloader()) == ["val", "val/law", "val/med"]
    in_train = any(row.place == "rows.jsonl:4" for row in data.encoded["train"])
    assert data.audit.splits["val/med"]["leaked"] == in_train
    assert data.digests().keys() == {"data.path", "data.extra_val.law", "data.extra_val.med"}


def test_a_validation_file_needs_a_validation_set_and_rows(custom, tmp_path):
    write_rows(tmp_path / "med.jsonl", *rows_of(100, 101))
    with pytest.raises(UserError, match=r"data\.extra_val: needs a validation set too"):
        custom(rows_of(*range(4)), "+data.extra_val.med=med.jsonl", "data.split.val=0")
    with pytest.raises(UserError, match=r"data\.extra_val\.med: no row of the file is left"):
        custom(rows_of(0, 3, 6), "+data.extra_val.med=med.jsonl", "data.max_prompt_tokens=40")


def test_sets_of_a_mix_share_a_validation_set_by_its_name(module, tmp_path):
    write_rows(tmp_path / "a.jsonl", *(chat_row(f"A {n}", "Yes") for n in range(6)))
    write_rows(tmp_path / "b.jsonl", *({"instruction": f"B {n}", "input": "", "output": "No"} for n in range(6)))
    own = ("data.sets.academic.path=a.jsonl", "data.sets.keyword_qa=null", "+data@data.sets.alpaca=alpaca")
    own += ("data.sets.alpaca.path=b.jsonl", "data.path=null")
    more = ("+data.sets.academic.extra_val.hard=a.jsonl", "+data.sets.alpaca.extra_val.hard=b.jsonl")
    alone, data = (module("data=mix", "model=tiny_gpt2", *own, *given) for given in ((), more))
    assert data.extra_val == ("val/hard",)
    assert len(data.indices["val/hard"]) == 12
    assert [row.place for row in data.encoded["train"]] == [row.place for row in alone.encoded["train"]]
    assert [row.place for row in data.encoded["val"]] == [row.place for row in alone.encoded["val"]]


LONG = "How {} can I get back into my account if I have lost the phone that gets the code"  # 15 grams, 2 with the gap


def test_a_prompt_that_is_nearly_one_in_train_is_found_with_its_places(custom, tmp_path):
    rows = [*rows_of(*range(8)), {"instruction": LONG.format("soon"), "output": "Call the desk."}]
    more = [*rows_of(100), {"instruction": LONG.format("today"), "output": "Call the desk!"}]
    write_rows(tmp_path / "val.jsonl", *more, {"instruction": "question 3", "output": "Answer 3"})
    options = ("data.val_path=val.jsonl", "data.max_prompt_tokens=400")
    data = custom(rows, *options)
    assert [(n.split, n.place, n.train, n.prompt, n.reply) for n in data.near_duplicates] == [
        ("val", "val.jsonl:2", "rows.jsonl:9", pytest.approx(13 / 17), 1.0),
        ("val", "val.jsonl:3", "rows.jsonl:4", 1.0, 1.0),
    ]
    assert data.is_in_train(data.indices["val"]).tolist() == [False, True, True]  # and one except for case
    assert first_rows(data, None, "val").in_train == [False, True, True]
    assert [data.audit.splits["val"][key] for key in ("leaked", "near_leaked", "similar")] == [0, 1, 2]
    dropped = custom(rows, *options, "data.near_duplicates=drop")
    assert [row.place for row in dropped.encoded["val"]] == ["val.jsonl:1"]
    assert dropped.row_counts.dropped == {"in train and val, nearly": 2}
    with pytest.raises(UserError, match=r"val\.jsonl:2: its prompt is nearly that of rows\.jsonl:9"):
        custom(rows, *options, "data.near_duplicates=error")
    assert custom(rows, *options, "data.near_duplicates=off").near_duplicates is None


def test_a_file_that_is_not_there_is_named_with_its_key(custom):
    with pytest.raises(UserError, match=r"data\.val_path=none\.jsonl") as caught:
        custom(rows_of(*range(4)), "data.val_path=none.jsonl")
    assert "sample" not in str(caught.value)  # which is no choice here


def test_an_invalid_row_of_such_a_file_is_named_with_its_key(custom, tmp_path):
    write_rows(tmp_path / "test.jsonl", *rows_of(100), {"instruction": "no output"})
    with pytest.raises(
        UserError, match=r"data\.test_path=test\.jsonl: 1 of 2 rows is refused; .*\n  - test\.jsonl:2: "
    ):
        custom(rows_of(*range(4)), "data.test_path=test.jsonl")
