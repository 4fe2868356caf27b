"""Free text on a command line: quoted for Hydra's grammar, never an interpolation."""

import pytest

from llmft.config.cli_args import quoted


@pytest.mark.parametrize(
    ("argument", "as_hydra_takes_it"),
    [
        ("question=What's LoRA, and (why) = [x]?", r"question='What\'s LoRA, and (why) = [x]?'"),
        ("question=back\\", "question='back\\\\'"),
        ("question='quoted'", "question='quoted'"),
        ("question=null", "question=null"),
        ("question=[INST] hi", "question='[INST] hi'"),
        ("question='tis", r"question='\'tis'"),
        ("question=", "question=''"),
        ("data.system=${oc.env:X}", "data.system=${oc.env:X}"),
        ("data.path=my rows, (1).jsonl", "data.path='my rows, (1).jsonl'"),
        ("debug=true", "debug='true'"),
        ("seed=1", "seed=1"),
        ("-m", "-m"),
    ],
)
def test_free_text_passes_hydras_grammar(argument, as_hydra_takes_it, load):
    assert quoted(argument, multirun=False) == as_hydra_takes_it
    if argument.startswith("question=") and argument not in ("question=null", "question='quoted'"):
        assert load(as_hydra_takes_it, command="answer").question == argument.partition("=")[2]


@pytest.mark.parametrize(
    "text", ["${HOME}", "what does ${oc.env:HOME} mean?", "\\${x}", "a\\\\${x}'b", "$x {y}", "\\\\"]
)
def test_free_text_is_never_an_interpolation(text, load):
    assert load(quoted(f"question={text}", multirun=False), command="answer").question == text


def test_a_swept_path_stays_a_list():
    assert quoted("data.path=a,b", multirun=True) == "data.path=a,b"
