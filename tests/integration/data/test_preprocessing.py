"""From a file to encoded rows: the same for any number of processes and from the cache, every row accounted for."""

import json
import os
import signal
import subprocess
import sys

import pytest

from llmft.data.preprocessing import encode, read_examples
from llmft.utils.errors import UserError
from tests.conftest import chat_row, write_rows


def rows(number, start=0):
    return [
        chat_row(f"Question {n}? " + "why " * (n % 7), f"Answer {n}. " + "so " * (n % 11)) for n in range(start, number)
    ]


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_any_number_of_processes_gives_the_same_rows(module, tmp_path, model, monkeypatch):
    monkeypatch.setattr(read_examples, "BATCH_ROWS", 7)
    write_rows(tmp_path / "rows.jsonl", *rows(60))
    common = (f"model={model}", "data.cache=off", "data.max_answer_tokens=40", "data.too_long=trim_answer")
    alone, several = module(*common, "data.processes=1"), module(*common, "data.processes=3")
    assert list(alone.encoded["train"]) == list(several.encoded["train"])
    assert list(alone.encoded["val"]) == list(several.encoded["val"])
    assert alone.row_counts.summary() == several.row_counts.summary()
    assert alone.row_counts.cut > 0
    assert [e.place for e in alone.examples_in_order()] == [row.place for row in alone.in_order()]


def test_the_second_start_reads_what_the_first_has_written(module, tmp_path, monkeypatch, caplog):
    write_rows(tmp_path / "rows.jsonl", *rows(20), {"bad": 1})
    options = ("model=tiny_gpt2", "data.invalid=drop", f"data.cache={tmp_path / 'cache'}")
    first = module(*options)
    monkeypatch.setattr(encode.Preprocessor, "encode_batch", None)
    monkeypatch.setattr(read_examples.ExampleReader, "_example", None)
    with caplog.at_level("INFO", "llmft"):
        second = module(*options)
    assert [line for line in caplog.messages if str(tmp_path / "cache") in line] == caplog.messages
    assert len(caplog.messages) == 3  # examples, encoded rows, near-duplicates
    assert list(second.encoded["train"]) == list(first.encoded["train"])
    assert second.row_counts.summary() == first.row_counts.summary()
    second.row_counts.write_rejected(tmp_path / "rejected.jsonl")
    assert json.loads((tmp_path / "rejected.jsonl").read_text())["place"] == "rows.jsonl:21"


def test_a_process_that_is_killed_is_an_error_and_no_wait_for_ever(module, tmp_path, monkeypatch):
    write_rows(tmp_path / "rows.jsonl", *rows(60))
    monkeypatch.setattr(read_examples, "BATCH_ROWS", 7)
    parent, real = os.getpid(), encode.Preprocessor.encode_batch

    def die(self, number):
        if number == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, number)

    monkeypatch.setattr(encode.Preprocessor, "encode_batch", die)
    with pytest.raises(UserError, match=r"data.processes=2: one of them was killed"):
        module("model=tiny_gpt2", "data.processes=2", "data.cache=off")


@pytest.mark.slow
def test_runs_side_by_side_share_a_cache(tmp_path):
    write_rows(tmp_path / "rows.jsonl", *rows(3000))
    command = [
        sys.executable,
        "-m",
        "llmft",
        "preview",
        "model=tiny_gpt2",
        "data.path=rows.jsonl",
        "prompt=plain",
        "data.cache=cache",
        "format=json",
        "preview.rows=5",
    ]
    runs = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert {run.returncode for run in runs} == {0}
    assert len(set(outputs)) == 1
    assert len([f for f in (tmp_path / "cache").iterdir() if f.is_dir()]) == 2


CHANGES = {
    "a byte": None,
    "a budget": "data.max_answer_tokens=99",
    "the policy": "data.too_long=error",
    "the template": "prompt=alpaca",
    "what is trained": "data.train_on=all",
    "the system line": "data.system=Hi",
    "the model's tokenizer": "model=tiny_llama",
    "the limit": "data.limit=9",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_rows_misses_the_cache(module, tmp_path, change):
    write_rows(tmp_path / "rows.jsonl", *rows(12))
    options = ["model=tiny_gpt2", f"data.cache={tmp_path / 'cache'}"]
    folder = module(*options).table.file.parent
    if CHANGES[change] is None:
        write_rows(tmp_path / "rows.jsonl", *rows(11), chat_row("Question 11?", "answer"))
    else:
        options.append(CHANGES[change])
    changed = module(*options)
    assert changed.table.file.parent != folder
    off = module(*options, "data.cache=off")
    assert list(changed.encoded["train"]) == list(off.encoded["train"])
    assert not list((tmp_path / "cache").glob("*.*[!k]"))  # nothing unfinished is left, only locks


def test_the_code_of_a_data_set_is_part_of_the_key(module, tmp_path, monkeypatch):
    from llmft.data.preprocessing import cache

    write_rows(tmp_path / "rows.jsonl", *rows(12))
    options = ("model=tiny_gpt2", f"data.cache={tmp_path / 'cache'}")
    before = module(*options).examples_key
    monkeypatch.setattr(cache, "_digest", lambda *_: "other")
    assert module(*options).examples_key != before


def test_a_build_that_is_killed_leaves_nothing_that_is_used(module, tmp_path, monkeypatch):
    write_rows(tmp_path / "rows.jsonl", *rows(12))
    options = ("model=tiny_gpt2", f"data.cache={tmp_path / 'cache'}")
    real = encode.ColumnFiles.close

    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode.ColumnFiles, "close", die)
    with pytest.raises(KeyboardInterrupt):
        module(*options)
    monkeypatch.setattr(encode.ColumnFiles, "close", real)
    assert len(module(*options).encoded["train"]) == 11


def test_rows_read_are_rows_kept_and_dropped(module, tmp_path):
    bad = [{"messages": []}, {"text": 1}, chat_row("Q?", " ")]
    long = [chat_row("w" * 300, "A"), chat_row("Q", "w" * 300)]
    write_rows(tmp_path / "rows.jsonl", *rows(20), *bad, *long, *rows(2))
    data = module(
        "model=tiny_gpt2",
        "data.invalid=drop",
        "data.duplicates=drop",
        "data.max_prompt_tokens=100",
        "data.max_answer_tokens=100",
    )
    counts = data.row_counts
    assert counts.read == 27
    assert counts.dropped == {"invalid": 3, "duplicate": 2, "prompt too long": 1, "answer too long": 1}
    assert counts.read == counts.kept + counts.dropped.total()
    assert counts.blank == 1
    assert counts.kept == sum(map(len, data.encoded.values()))


def test_of_a_conversation_a_turn_may_be_left_out_and_the_row_stays(module, tmp_path):
    def talk(*texts):
        return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}

    write_rows(tmp_path / "rows.jsonl", talk("Q", "A", "Q", "w" * 99), talk("Q", "w" * 99, "Q", "w" * 99), *rows(3))
    data = module(
        "model=tiny_t5", "data.train_on_turns=all", "data.max_answer_tokens=50", "data.split={val: 0, test: 0}"
    )
    assert (data.row_counts.read, data.row_counts.kept, data.row_counts.dropped.total()) == (5, 4, 1)
    assert data.row_counts.parts_dropped == {"answer too long": 3}
    assert data.row_counts.sequences == len(data.encoded["train"]) == 4
    data.row_counts.write_rejected(tmp_path / "rejected.jsonl")
    assert [json.loads(line)["place"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()] == [
        "rows.jsonl:1",
        *["rows.jsonl:2"] * 3,
    ]


LEAKY = ("data.split_by=position", "data.split={val: 0.2, test: 0.2}")


def test_prompts_in_train_and_elsewhere(module, tmp_path):
    # train 0 to 5, test 6 and 7, val 8 and 9
    made = rows(10)
    made[7], made[9] = chat_row(made[1]["messages"][0]["content"], "Another"), made[0]
    write_rows(tmp_path / "rows.jsonl", *made)
    warned = module("model=tiny_gpt2", *LEAKY)
    assert warned.audit is not None
    assert [warned.audit.splits[name]["leaked"] for name in ("test", "val")] == [1, 1]
    assert len(warned.encoded["test"]) == 2

    dropped = module("model=tiny_gpt2", *LEAKY, "data.leakage=drop")
    assert [row.place for row in dropped.encoded["test"]] == ["rows.jsonl:7"]
    assert [row.place for row in dropped.encoded["val"]] == ["rows.jsonl:9"]
    assert dropped.row_counts.dropped == {"in train and test": 1, "in train and val": 1}
    assert dropped.row_counts.kept == 8
    assert dropped.row_counts.read == dropped.row_counts.kept + dropped.row_counts.dropped.total()

    with pytest.raises(UserError, match=r"data.leakage=error: 2 faults\n  - rows.jsonl:8: its prompt is also in train"):
        module("model=tiny_gpt2", *LEAKY, "data.leakage=error")


def test_what_was_cut_is_listed_by_place_and_reason(llmft, tmp_path):
    long = {"id": "1", "system_prompt": "s" * 200, "question": "Why?", "response": "So."}
    write_rows(tmp_path / "rows.jsonl", *({**long, "system_prompt": "s" * n} for n in (10, 200, 20)))
    code, out, err = llmft(
        "model=tiny_gpt2",
        "data=openorca",
        "data.path=rows.jsonl",
        "prompt=plain",
        "data.max_prompt_tokens=60",
        "output_dir=run",
        "debug=fast",
    )
    assert code == 0, err
    [listed] = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    # "sss\n\nWhy?\n" is one token a byte
    assert listed == {
        "place": "rows.jsonl:2",
        "field": "system",
        "reason": "the prompt has 207 tokens, data.max_prompt_tokens is 60",
        "action": "trim",
    }
    record = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert record["trimmed_parts"] == {"system": 1}
    assert "prompt tokens: median/95 %/max" in out


@pytest.mark.parametrize(
    ("row", "data", "hint"),
    [
        (
            {"instruction": "a", "input": "", "output": "b"},
            "academic",
            "refused by data=academic; data=alpaca reads them (Alpaca instructions)",
        ),
        (chat_row("a", "b"), "alpaca", "refused by data=alpaca; data=academic reads them (chat messages)"),
        (
            {"question": "a", "response_j": "b"},
            "openorca",
            "refused by data=openorca; data=psychology reads them (questions with a preferred answer)",
        ),
        (
            {"conversations": chat_row("a", "b")["messages"]},
            "academic",
            "data=custom data.columns.messages=conversations reads them",
        ),
        (
            {"prompt": "a", "completion": "b"},
            "academic",
            "data=custom data.columns.instruction=prompt data.columns.output=completion",
        ),
    ],
)
@pytest.mark.parametrize("invalid", ["error", "drop"])
def test_another_format_is_named(llmft, tmp_path, row, data, hint, invalid):
    write_rows(tmp_path / "rows.jsonl", *[row] * 40)
    code, _, err = llmft(
        "preview", "model=tiny_gpt2", f"data={data}", "data.path=rows.jsonl", f"data.invalid={invalid}"
    )
    assert code == 2
    assert hint in err
