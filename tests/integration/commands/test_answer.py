"""``answer``: every input and output, and a resumed file equals that of an uninterrupted run."""

import csv
import io
import json

import pytest
from omegaconf import OmegaConf

from llmft.commands import answer
from llmft.config.paths import conf_dir
from llmft.data.records import RowError, Turn
from llmft.generation.answer_file import AnswerFile, key_of
from llmft.generation.questions import sample_questions, to_question
from llmft.utils.csv import harmless
from llmft.utils.errors import UserError
from tests.conftest import DATA, cli, read_json_lines, write_rows


def own_questions(data):
    return OmegaConf.select(OmegaConf.load(conf_dir() / "data" / f"{data}.yaml"), "questions", default=())


ROWS = [
    {"question": f"What is {word}?", "id": word}
    for word in ("a llama", "=1+1", "an\ninstruction", "x" * 90, "LoRA", "Ω")
]


@pytest.fixture
def ask(llmft, lora_run, tmp_path):
    write_rows(tmp_path / "q.jsonl", *ROWS)
    return lambda *arguments: llmft("answer", f"run={lora_run}", *arguments)


def test_every_input_and_output_gives_the_same_answers(ask, tmp_path, monkeypatch):
    code, out, err = ask("input=q.jsonl", "format=json", "compare=true")
    assert code == 0, err
    printed = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in printed] == [row["id"] for row in ROWS]
    assert any(row["answer"] != row["base_answer"] for row in printed)
    assert ask("input=q.jsonl", "compare=true", "output=a.jsonl")[0] == 0
    assert [{k: v for k, v in row.items() if k != "key"} for row in read_json_lines(tmp_path / "a.jsonl")] == printed
    assert ask("input=q.jsonl", "compare=true", "output=a.csv")[0] == 0
    cells = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode(), newline="")))
    assert [row["answer"] for row in cells] == [harmless(row["answer"]) for row in printed]
    assert [row["base_answer"] for row in cells] == [harmless(row["base_answer"]) for row in printed]
    # standard input, a CSV file and a single question
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "q.jsonl").read_bytes())))
    again = ask("input=-", "input_format=jsonl", "format=json", "compare=true")[1]
    assert again == out
    with (tmp_path / "q.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "id"])
        writer.writeheader()
        writer.writerows(ROWS)
    assert ask("input=q.csv", "format=json", "compare=true")[1] == out
    single = ask("question=What is LoRA?", "format=json")[1]
    assert json.loads(single)["answer"] == printed[4]["answer"]


def test_a_resumed_file_equals_that_of_an_uninterrupted_run(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "BATCHES", 1)
    real, asked = answer._generate, []
    monkeypatch.setattr(
        answer, "_generate", lambda generator, chunk, *rest: (asked.extend(chunk), real(generator, chunk, *rest))[1]
    )
    small = ("input=q.jsonl", "generation.batch_size=2", "output=a.csv")
    assert ask(*small)[0] == 0
    whole = (tmp_path / "a.csv").read_bytes()
    for cut, left in (
        (whole.index(b"instruction") + 1, 4),
        (len(whole), 0),
    ):  # in the middle of the third row, and at the end
        (tmp_path / "a.csv").write_bytes(whole[:cut])
        asked.clear()
        assert ask(*small)[0] == 0
        assert len(asked) == left
        assert (tmp_path / "a.csv").read_bytes() == whole


KEYS = [key_of(number) for number in range(4)]
TEXTS = ("plain", '=a, "b"\nc\r\n', "Ω\n", "")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_cut_anywhere_keeps_its_complete_rows(kind, tmp_path):
    def made(name):
        return AnswerFile(str(tmp_path / f"{name}.{kind}"), ("id", "question", "answer", "ended", "key"))

    rows = [
        {"id": str(n), "question": "q", "answer": t, "ended": True, "key": k}
        for n, (t, k) in enumerate(zip(TEXTS, KEYS, strict=True))
    ]
    straight = made("straight")
    straight.append(rows)
    whole = straight.file.read_bytes()
    for cut in range(len(whole) + 1):
        torn = made("torn")
        torn.file.write_bytes(whole[:cut])
        done = torn.finished(KEYS)
        assert done >= sum(whole.index(key.encode()) + 19 <= cut for key in KEYS)
        torn.append(rows[done:])
        assert torn.file.read_bytes() == whole, cut


def test_answers_under_other_settings_are_not_mixed_in(ask, tmp_path):
    assert ask("question=Hi", "output=a.jsonl")[0] == 0
    kept = (tmp_path / "a.jsonl").read_bytes()
    code, _, err = ask("question=Hi", "generation.max_new_tokens=3", "output=a.jsonl")
    assert code == 2
    assert "row 1 does not answer that question" in err
    assert (tmp_path / "a.jsonl").read_bytes() == kept


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_of_anything_else_is_left_untouched(kind, tmp_path):
    def made():
        return AnswerFile(str(tmp_path / f"a.{kind}"), ("id", "answer", "key"))

    made().append([{"id": "1", "answer": "x", "key": KEYS[0]}])
    rows = made().file.read_bytes()
    for content in (rows, b"precious\nnotes\n", b"a,b\n1,2\n", b'{"a": 1}\n', b"\xff\xfe"):
        made().file.write_bytes(content)
        with pytest.raises(UserError, match="row 1 does not answer that question"):
            made().finished(KEYS[1:])
        assert made().file.read_bytes() == content


@pytest.mark.slow
def test_text_cannot_be_resumed(ask, tmp_path):
    assert ask("input=q.jsonl", "output=a.txt", "compare=true")[0] == 0
    assert (tmp_path / "a.txt").read_text().count("\nbase:  ") == len(ROWS)
    code, _, err = ask("input=q.jsonl", "output=a.txt")
    assert code == 2
    assert "a text file cannot be resumed" in err


@pytest.mark.slow
def test_a_full_run_compares_with_its_base(full_run, tmp_path):
    done = cli("answer", f"run={full_run}", "questions=samples", "compare=true", "format=json", cwd=tmp_path)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["question"] for row in rows] == [
        e.context[-1].content for e in sample_questions(own_questions("psychology"))
    ]
    plain = cli("answer", "model=tiny_t5", "input=-", "format=json", "prompt=t5", "generation.max_new_tokens=10",
                "system=You are a compassionate mental health assistant.", f"input={write_rows(tmp_path / 'q.jsonl', *rows)}", cwd=tmp_path)  # fmt: skip
    assert [json.loads(line)["answer"] for line in plain.stdout.splitlines()] == [row["base_answer"] for row in rows]
    assert any(row["answer"] != row["base_answer"] for row in rows)


@pytest.mark.parametrize("data", [*DATA, "custom"])
def test_there_are_five_questions_for_every_data_set(data):
    texts = {example.context[-1].message()["content"] for example in sample_questions(own_questions(data))}
    assert len(texts) == 5
    assert all(len(text) > 10 for text in texts)


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ({"question": "Q", "input": "", "system": ""}, [("user", "Q", "")]),
        ({"instruction": "Q", "input": "I", "output": "A"}, [("user", "Q", "I")]),
        ({"system_prompt": "S", "question": "Q", "response": "A"}, [("system", "S", ""), ("user", "Q", "")]),
        ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, [("user", "Q", "")]),
        (
            {"messages": [{"role": r, "content": r} for r in ("system", "user", "assistant", "user")]},
            [("system", "system", ""), ("user", "user", ""), ("assistant", "assistant", ""), ("user", "user", "")],
        ),
    ],
)
def test_a_row_is_a_question(row, context):
    assert to_question(row, "f:7").context == tuple(Turn(*turn) for turn in context)
    assert to_question(row, "f:7").id == "7"


@pytest.mark.parametrize("row", [[], 3, {}, {"question": 1}, {"messages": []}, {"messages": 3}, {"messages": [3]}, {"messages": [{"role": "assistant", "content": "A"}]},
                                 {"question": "Q", "system": 5}, {"question": "Q", "input": 5}, {"question": "\ud800"}])  # fmt: skip
def test_a_row_without_a_question_is_refused(row):
    with pytest.raises(RowError):
        to_question(row, "f:1")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", '=HYPERLINK("http://x")', "\uff1d1", "\uff0b1"]
)
def test_formulas_are_neutralized(text):
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "1", "a=b", "Ω", "'", "1-2", True, None])
def test_other_cells_stay(text):
    assert harmless(text) == ("" if text is None else str(text))


def test_it_says_whom_it_asks_without_run_and_model(llmft, monkeypatch):
    def stop(cfg):
        raise UserError(f"would load {cfg.model.name}")

    monkeypatch.setattr("llmft.generation.load.Backbone.open", stop)
    line = "model: smollm2_135m, not fine-tuned (no run= given; run=latest takes your newest run)\n"
    assert llmft("answer", "question=hi") == (2, "", f"{line}llmft: would load smollm2_135m\n")
    assert llmft("answer", "question=hi", "model=tiny_t5") == (2, "", "llmft: would load tiny_t5\n")
