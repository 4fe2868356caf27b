"""Bad input: one clear message on standard error, exit code 2, and no model is loaded."""

import json

import pytest

from llmft.models.backbone import load
from tests.conftest import chat_row, write_rows

GOOD = json.dumps(chat_row("Q?", "A.")).encode()


def row(**messages):
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in messages.items()]}).encode()


FILES = {
    "missing file": (None, "data.path=rows.jsonl: no such file"),
    "empty file": (b"", "rows.jsonl:1: the file is empty"),
    "broken JSON": (GOOD + b'\n{"messages": [\n' + GOOD, "rows.jsonl:2: row: broken JSON"),
    "missing field": (GOOD + b'\n\n{"text": "x"}', "rows.jsonl:3: messages: is missing; there is text"),
    "null": (row(user=None, assistant="A"), "rows.jsonl:1: messages[0].content: must be text, got null"),
    "a number": (row(user="Q", assistant=7), "rows.jsonl:1: messages[1].content: must be text, got 7"),
    "wrong role": (
        row(user="Q", bot="A"),
        'rows.jsonl:1: messages[1].role: must be one of system, developer, user, assistant, tool, got "bot"',
    ),
    "empty answer": (row(user="Q", assistant=""), 'rows.jsonl:1: messages[1].content: must not be blank, got ""'),
    "not UTF-8": (
        GOOD + b'\n{"messages": "caf\xe9"}',
        "rows.jsonl:2: row: not UTF-8 (byte 0xe9); save the file as UTF-8",
    ),
    "not a row": (b"[1, 2]", "rows.jsonl:1: row: must be an object, got [1, 2]"),
}
KEYS = {
    "optim.learning_rat=1": "optim.learning_rat: no such key. Did you mean optim.lr=1?",
    "model=tiny_gtp2": "model=tiny_gtp2: no such option. Did you mean model=tiny_gpt2?",
    "data.batch_size=many": "data.batch_size=many: must be a whole number of at least 1",
    "optim.lr=-0.1": "optim.lr=-0.1: must be a number above 0",
    "data.limit=3,4": "data.limit=3,4: ",
    "data.max_prompt_tokens=4096": "data.max_prompt_tokens=4096 + data.max_answer_tokens=512 = 4608 tokens, ",
    "trainer.val_check_interval=500": "trainer.val_check_interval=500: an epoch has 13 batches; lower it",
    "scheduler.warmup_steps=39": "scheduler.warmup_steps=39: the training has 39 steps, so the learning rate would never reach",
    "+generation.temperature=0.5": "generation: ",
    "output_dir=/proc/nowhere/run": "output_dir='/proc/nowhere/run': cannot be made",
    "peft.targets=[q_proj,nope]": "peft.targets: q_proj, nope match no layer of this model; it has c_attn, c_fc, c_proj",
    "prompt=chat": "prompt=chat: this model's tokenizer has no chat template",
    "model.path=./nowhere/model": "model.path=./nowhere/model: no such folder",
    "model.path=tiny:bert": "model.path=tiny:bert: no such tiny model; there are tiny:t5",
    "model.gguf_file=x.gguf model.path=.": "model.gguf_file=x.gguf: is not in",
    "data.max_answer_tokens=1": "data.path=sample:academic.jsonl: no row is left to train on (",
    "data.path=someone/rows": "data.path=someone/rows: no such local file, and it could not be loaded from the Hub",
    "model.path=someone/model": "model.path=someone/model: no such local folder, and the download from the Hub failed",
}


@pytest.fixture
def no_model(monkeypatch):
    """Loading weights fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(load, "load_model", refuse)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(name, llmft, tmp_path):
    content, message = FILES[name]
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    code, _, err = llmft("model=tiny_gpt2", "data.path=rows.jsonl", "output_dir=run")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    if content is None:  # it is refused before there is a run
        assert list(tmp_path.iterdir()) == []
    else:
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("overrides", KEYS)
def test_a_bad_key_or_value(overrides, llmft, monkeypatch):
    if not any(word in overrides for word in ("interval", "warmup")):
        monkeypatch.setattr(load, "load_model", None)
    code, _, err = llmft("model=tiny_gpt2", "output_dir=run", *overrides.split())
    assert code == 2
    assert KEYS[overrides] in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("fault", ["optim.lr=-0.1", "peft.targets=[nowhere]"], ids=["value", "architecture"])
def test_a_refused_run_leaves_nothing_behind(fault, llmft, tmp_path):
    code, _, err = llmft("model=tiny_gpt2", "peft=lora", fault, "output_dir=a/b")
    assert (code, fault.partition("=")[0] in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_first_five_places_and_their_total(llmft, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *({"messages": number} for number in range(9)))
    code, _, err = llmft("model=tiny_gpt2", "data.path=rows.jsonl", "output_dir=run")
    assert code == 2
    assert err.endswith(
        "data.path=rows.jsonl: all 9 rows are refused\n"
        "  - rows.jsonl:1, 2, 3, 4, 5, ...: messages: must be a list of turns, got 0 (9 rows)\n"
    )


def test_a_fault_of_all_rows_is_said_once(llmft, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *({"question": f"Q{n}", "a": "A"} for n in range(500)))
    columns = ("data.columns.instruction=qestion", "data.columns.output=a")
    code, _, err = llmft("preview", "model=tiny_gpt2", "data=custom", "data.path=rows.jsonl", *columns)
    assert code == 2
    assert err.endswith(
        "data.path=rows.jsonl: all of the first 20 rows are refused; data=custom data.columns.instruction=question "
        "data.columns.output=a reads them (questions and answers)\n"
        "  - rows.jsonl:1, 2, 3, 4, 5, ...: data.columns.instruction=qestion: no such field; there is question, a. "
        "Did you mean data.columns.instruction=question? (20 rows)\n"
    )


def test_equal_faults_of_some_rows_are_one_line(llmft, tmp_path):
    good = {"q": "Q", "a": "A"}
    write_rows(tmp_path / "rows.jsonl", good, *({"q": "", "a": "A"} for _ in range(7)), {"q": 1, "a": "A"}, good)
    columns = ("data.columns.instruction=q", "data.columns.output=a")
    code, _, err = llmft("preview", "model=tiny_gpt2", "data=custom", "data.path=rows.jsonl", *columns)
    assert code == 2
    assert err.endswith(
        "data.path=rows.jsonl: 8 of 10 rows are refused; data.invalid=drop leaves them out (2 left)\n"
        '  - rows.jsonl:2, 3, 4, 5, 6, ...: q: must not be blank, got "" (7 rows)\n'
        "  - rows.jsonl:9: q: must be text, got 1; data.coerce=true reads numbers as text\n"
    )


def test_bom_crlf_and_a_blank_last_line_are_fine(llmft, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([GOOD, GOOD, GOOD]) + b"\r\n\r\n")
    code, out, err = llmft("preview", "model=tiny_gpt2", "data.path=rows.jsonl", "format=json", "data.split.val=0")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [r["place"] for r in rows[:-1]] == ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]


def test_invalid_drop_keeps_the_good_rows_and_lists_the_others(llmft, tmp_path):
    rows = [chat_row(f"Q{n}?", f"A{n}.") for n in range(8)]
    write_rows(tmp_path / "rows.jsonl", *rows[:3], {"text": 1}, *rows[3:], {"messages": []}, rows[0])
    code, _, err = llmft(
        "model=tiny_gpt2",
        "data.path=rows.jsonl",
        "data.invalid=drop",
        "data.duplicates=drop",
        "debug=fast",
        "output_dir=run",
    )
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (record["rows"], record["kept"], record["dropped"]) == (11, 8, {"invalid": 2, "duplicate": 1})
    rejected = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["place"], r["field"]) for r in rejected] == [
        ("rows.jsonl:4", "messages"),
        ("rows.jsonl:10", "messages"),
        ("rows.jsonl:11", "duplicate"),
    ]
    assert rejected[2]["reason"] == "repeats rows.jsonl:1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["question=  "], "question: must not be blank"),
        ([], 'answer: pass one of question="...", input=FILE (- is standard input) and questions=samples'),
        (["question=a", "input=b"], "answer: pass one of"),
        (["run=nowhere", "question=a"], "run=nowhere: no run directory"),
        (["input=bad.jsonl"], "bad.jsonl:1: question: is missing; there is text"),
        (["question="], "question: must not be blank"),
        (["question=a", "output=no/such/folder.jsonl"], "output=no/such/folder.jsonl: there is no folder"),
        (["question=a", "output=."], "output=.: is a folder"),
        (
            ["input=nowhere.jsonl"],
            "input=nowhere.jsonl: must be an existing .jsonl, .json, .csv, .tsv, .txt file, or - for standard input",
        ),
        (["input=latin.txt"], "latin.txt:1: not UTF-8"),
        (["input=empty.txt"], "input=empty.txt: has no question"),
        (["input=chat.jsonl"], "chat.jsonl:1: messages[0].role: must be user here"),
        (["questions=5"], "questions=5: must be samples"),
        (["question=a", "output=answers.xlsx"], "output=answers.xlsx: must end in .jsonl, .csv, .txt"),
        (["question=a", "compare=true"], "compare=true: compares a run with its base model; pass run=RUN"),
        (["run=~nobodyhere/x", "question=a"], "~nobodyhere/x: "),
        (["run=broken", "question=a", "prompt=plain"], "prompt=plain: a run has its own model and prompt"),
        (["run=broken", "question=a"], "run=broken: config.yaml cannot be used"),
        ([f"question={'x' * 6000}"], "the longest prompt has 6"),
        (["question=a", "+generation.foo=1"], "generation.foo: transformers' GenerationConfig has no such setting"),
        (["question=a", "+generation.temperature=0.5"], "generation: "),
    ],
)
def test_answer_says_what_it_needs(arguments, message, llmft, tmp_path):
    write_rows(tmp_path / "bad.jsonl", {"text": "x"})
    write_rows(tmp_path / "chat.jsonl", {"messages": [{"role": "assistant", "content": "x"}] * 2})
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "broken" / "model").mkdir(parents=True)
    (tmp_path / "broken" / "config.yaml").write_text("[]")
    model = [] if any(argument.startswith("run=") for argument in arguments) else ["model=tiny_gpt2"]
    code, _, err = llmft("answer", *model, *arguments)
    assert code == 2
    assert message in err


def test_debug_true_shows_the_traceback_too(llmft):
    code, _, err = llmft("model=tiny_gpt2", "debug=true", "optim.lr=0")
    assert code == 2
    assert "Traceback" in err
    assert "optim.lr=0: must be a number above 0" in err


def test_a_wrong_key_is_named_before_a_run_that_is_not_there(llmft):
    code, _, err = llmft("serve", "run=nope", "wrong.key=1")
    assert (code, "wrong.key: no such key" in err, "run=nope" in err) == (2, True, False)
    code, _, err = llmft("serve", "run=nope")
    assert (code, "run=nope: no run directory" in err) == (2, True)
