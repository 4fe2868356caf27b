"""Options in messages arrive in the config as they were meant, when they are pasted into bash."""

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from llmft.utils.shell import argument, arguments, command_line, part

VALUES = [
    "question",
    "my question",
    "Question (English)",
    "it's",
    'a "quoted" one',
    "true",
    "12",
    "a,b",
    "$HOME",
    "x=y",
    "",
    "données",
    "a\\b",
    ["q_proj", "v_proj"],
    ["<ROAD>", "a b", "1"],
    True,
    None,
    4,
    "1e-3",
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_pasted_option_has_its_value(value):
    text = subprocess.run(["bash", "-c", f"printf %s {argument('key', value)}"], capture_output=True, text=True).stdout
    assert OverridesParser.create().parse_override(text).value() == value


def test_plain_values_need_no_quotes():
    pairs = {"data.columns.instruction": "question", "data.columns.output": "answer", "peft.r": 4}
    assert arguments(pairs.items()) == "data.columns.instruction=question data.columns.output=answer peft.r=4"


def test_a_command_line_is_quoted_only_where_a_shell_needs_it():
    line = command_line(
        "evaluate", ["run='outputs/a-b'", "output='my file.jsonl'", "evaluate.seeds=[1,2]", "data.limit=3"]
    )
    assert line == "python -m llmft evaluate run=outputs/a-b 'output=my file.jsonl' 'evaluate.seeds=[1,2]' data.limit=3"


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("data.path='sample'", "data.path=sample"),
        ('data.path="my rows.jsonl"', "'data.path=my rows.jsonl'"),
        ("data.subset='12'", "'data.subset=\"12\"'"),
        ("data.split.val=0.1", "data.split.val=0.1"),
        ("-m", "-m"),
        ("llmft", "llmft"),
    ],
)
def test_a_recorded_override_keeps_hydras_quotes_only_where_it_needs_them(recorded, shown):
    assert part(recorded) == shown
