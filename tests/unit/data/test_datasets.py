"""What a row of each data set means, and what is said of rows that mean nothing."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from llmft.data.academic import Academic
from llmft.data.alpaca import Alpaca
from llmft.data.keyword_qa import KeywordQA
from llmft.data.openorca import OpenOrca
from llmft.data.psychology import Psychology
from llmft.data.records import Example, RowError, Turn
from llmft.data.sources import SAMPLES, find, read
from llmft.data.support import Support
from tests.conftest import DATA, SHARED, composed

CLASSES = {
    "academic": Academic,
    "alpaca": Alpaca,
    "openorca": OpenOrca,
    "psychology": Psychology,
    "keyword_qa": KeywordQA,
}
Q, A = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}

MEANINGS = [
    (Academic, {"messages": [Q, A]}, Example((Turn("user", "Q?"),), "A.")),
    (
        Academic,
        {
            "messages": [
                {"role": "system", "content": "S"},
                Q,
                A,
                {"role": "user", "content": "More?"},
                {"role": "assistant", "content": "B"},
            ]
        },
        Example((Turn("system", "S"), Turn("user", "Q?"), Turn("assistant", "A."), Turn("user", "More?")), "B"),
    ),
    (Alpaca, {"instruction": "I", "input": "", "output": "O"}, Example((Turn("user", "I"),), "O")),
    (Alpaca, {"instruction": "I", "input": "  ", "output": "O"}, Example((Turn("user", "I"),), "O")),
    (Alpaca, {"instruction": "I", "input": "in", "output": "O"}, Example((Turn("user", "I", "in"),), "O")),
    (
        OpenOrca,
        {"id": "x.1", "system_prompt": "S", "question": "Q", "response": "R"},
        Example((Turn("system", "S"), Turn("user", "Q")), "R", id="x.1"),
    ),
    (
        OpenOrca,
        {"id": "x.2", "system_prompt": "", "question": "Q", "response": "R"},
        Example((Turn("user", "Q"),), "R", id="x.2"),
    ),
    (
        Psychology,
        {"question": "Q", "response_j": "kind", "response_k": "unkind"},
        Example((Turn("user", "Q"),), "kind"),
    ),
    (
        KeywordQA,
        {"question": "Q", "answer_keywords": ["one", "two words"]},
        Example((Turn("user", "Q"),), "one, two words"),
    ),
    (
        Support,
        {"urgency": "low", "message": "Q", "intent": "refund", "product": "watch"},
        Example((Turn("user", "Q"),), '{"intent": "refund", "product": "watch", "urgency": "low"}'),
    ),
    (KeywordQA, {"question": "Q", "answer_keywords": "['a', 'b c']"}, Example((Turn("user", "Q"),), "a, b c")),
    (KeywordQA, {"question": "Q", "answer_keywords": "a; b c"}, Example((Turn("user", "Q"),), "a, b c")),
    (Alpaca, {"instruction": "I", "output": "O"}, Example((Turn("user", "I"),), "O")),
    (Alpaca, {"instruction": "I", "input": None, "output": "O"}, Example((Turn("user", "I"),), "O")),
    (Alpaca, {"instruction": " ", "input": "in", "output": "O"}, Example((Turn("user", "in"),), "O")),
]

FAULTS = [
    (Academic, {}, "messages: is missing"),
    (Academic, {"messages": "hi"}, "messages: must be a list of turns"),
    (Academic, {"messages": []}, "messages: must be a list of turns, got []"),
    (Academic, {"messages": [Q]}, "messages[0].role: the last turn must be assistant"),
    (Academic, {"messages": [Q, Q]}, "messages[1].role: must be assistant here"),
    (Academic, {"messages": [A]}, "messages[0].role: must be user here"),
    (Academic, {"messages": [{"role": "system", "content": "S"}]}, "the last turn must be assistant"),
    (
        Academic,
        {"messages": [{"role": "bot", "content": "x"}, A]},
        'messages[0].role: must be one of system, developer, user, assistant, tool, got "bot"',
    ),
    (Academic, {"messages": [{"role": ["user"], "content": "x"}, A]}, "messages[0].role: must be one of"),
    (Academic, {"messages": [Q, {"role": "assistant", "content": " "}]}, "messages[1].content: must not be blank"),
    (Academic, {"messages": [Q, {"role": "assistant"}]}, "messages[1].content: is missing"),
    (Academic, {"messages": [Q, None]}, "messages[1]: must be an object, got null"),
    (Alpaca, {"instruction": "", "input": "", "output": "O"}, "instruction: must not be blank"),
    (Alpaca, {"instruction": None, "input": "", "output": "O"}, "instruction: must be text, got null"),
    (Alpaca, {"instruction": "I", "input": "", "output": 5}, "output: must be text, got 5"),
    (Alpaca, ["I"], "row: must be an object"),
    (
        OpenOrca,
        {"id": "1", "system_prompt": None, "question": "Q", "response": "R"},
        "system_prompt: must be text, got null",
    ),
    (Psychology, {"question": "Q", "response_k": "unkind"}, "response_j: is missing"),
    (Psychology, {"question": "Q", "response_j": "half \ud800"}, "response_j: holds half of a surrogate pair"),
    (KeywordQA, {"question": "Q", "answer_keywords": []}, "answer_keywords: must be a list of strings, got []"),
    (KeywordQA, {"question": "Q", "answer_keywords": "[one"}, 'answer_keywords: must be a list of strings, got "[one"'),
    (KeywordQA, {"question": "Q", "answer_keywords": ["one", 2]}, "answer_keywords[1]: must be text, got 2"),
    (Support, {"message": "Q", "intent": "refund", "product": "watch"}, "urgency: is missing"),
]


@pytest.mark.parametrize(("cls", "row", "example"), MEANINGS)
def test_a_row_means(cls, row, example):
    before = json.dumps(row)
    assert cls.to_example(row) == example
    assert json.dumps(row) == before


@pytest.mark.parametrize(("cls", "row", "message"), FAULTS)
def test_a_broken_row_names_field_and_reason(cls, row, message):
    with pytest.raises(RowError) as error:
        cls.to_example(row)
    assert message in str(error.value)


def test_the_unkind_answer_is_never_read():
    row = {"question": "Q", "response_j": "kind", "response_k": object()}
    assert "kind" in Psychology.to_example(row).answer


@pytest.mark.parametrize("name", DATA)
def test_shipped_samples_are_whole(name):
    rows = list(read(find("sample", name)))
    assert 60 <= len(rows) <= 120
    examples = [CLASSES[name].to_example(located.row) for located in rows]
    assert len({(e.context, e.answer) for e in examples}) == len(examples)
    text = next(SAMPLES.glob(f"{name}.json*")).read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"\n")
    if name == "psychology":
        for located, example in zip(rows, examples, strict=True):
            assert located.row["response_k"] not in example.answer + example.context[-1].content


def test_support_rows_are_balanced_named_by_the_system_prompt_and_no_two_alike():
    rows = [located.row for located in read(find("sample", "support"))]
    labels = Counter((row["intent"], row["product"], row["urgency"]) for row in rows)
    assert len(labels) == 5 * 4 * 3
    assert set(labels.values()) == {6}
    system = composed("data=support").data.system
    named = set(re.findall(r"\w+", system))
    assert {value for label in labels for value in label} | {"intent", "product", "urgency"} <= named
    words = [set(re.findall(r"\w+", row["message"].lower())) for row in rows]
    assert max(len(a & b) / len(a | b) for a, b in combinations(words, 2)) < 0.5


@pytest.mark.parametrize("name", DATA)
def test_real_rows_all_mean_something(name):
    file = SHARED / DATA[name]
    if not file.exists():
        pytest.skip(f"the real rows are not here: {file}")
    count = sum(CLASSES[name].to_example(located.row) is not None for located in read(find(str(file), name)))
    assert count == {"academic": 1152, "alpaca": 1100, "openorca": 361, "psychology": 1100, "keyword_qa": 1000}[name]


def test_a_system_line_is_for_rows_without_one():
    plain = Example((Turn("user", "Q"),), "A", "7", "f:1")
    assert plain.with_system("S") == Example((Turn("system", "S"), Turn("user", "Q")), "A", "7", "f:1")
    assert plain.with_system(None) is plain
    assert plain.with_system("S").with_system("T").context[0].content == "S"


def test_places_are_one_based_lines(tmp_path: Path):
    file = tmp_path / "rows.json"
    file.write_text('[\n  {"a": 1},\n\n  {"a":\n 2}\n]\n')
    assert [located.place for located in read(find(str(file), "x"))] == [f"{file}:2", f"{file}:4"]
