"""A command line: free text is quoted for Hydra's grammar and never an interpolation, and flags may stand anywhere."""

import pytest

from llmft.config.flags import split_flags
from llmft.config.override_text import quoted


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


def test_a_section_whose_keys_the_user_names_takes_new_keys():
    assert quoted("data.extra_val.med=a,b.jsonl", multirun=False) == "++data.extra_val.med='a,b.jsonl'"
    assert quoted("data.sets.qa.extra_val.med=x", multirun=True) == "++data.sets.qa.extra_val.med=x"
    assert quoted("+data.extra_val.med=x", multirun=False) == "+data.extra_val.med='x'"
    assert quoted("data.extra_val={a: x}", multirun=False) == "data.extra_val={a: x}"


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ("answer --config-dir=own run=x", ["--config-dir=own"]),
        ("answer run=x --config-dir own", ["--config-dir=own"]),
        ("--config-dir own answer run=x", ["--config-dir=own"]),
        ("answer run=x -cd own -m", ["--config-dir=own", "-m"]),
        ("answer -c job run=x", ["--cfg=job"]),
        ("answer run=x --info", ["--info=all"]),
        ("answer --info run=x", ["--info=all"]),
        ("answer --info defaults run=x", ["--info=defaults"]),
        ("answer run=x --nonsense", ["--nonsense"]),
        ("answer run=x -cjob", ["-cjob"]),
    ],
)
def test_flags_go_before_overrides_wherever_they_are_written(arguments, flags):
    assert split_flags(arguments.split()) == (flags, ["answer", "run=x"])
