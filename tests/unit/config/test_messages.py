"""What a command line as people type it is answered with, by text; each proposed option is itself accepted.

Messages that need more than the config are tested with what they are about: columns and files in ``unit/data/test_early.py`` and
``integration/commands/test_bad_input.py``, ``model.path`` in ``unit/models/backbone/test_locate.py``, budgets and LoRA targets in
``unit/models/test_architecture_check.py``, GPUs in ``unit/utils/test_device.py``, ``run=latest`` in ``unit/runs/test_find.py``, sweeps in
``integration/sweep/test_sweep.py``.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest

from llmft.__main__ import run
from llmft.config.compose import Explanation, composition_faults, config_keys
from llmft.config.override_text import quoted
from llmft.config.paths import conf_dir
from llmft.config.suggest import SYNONYMS, key_hint, option_hint
from tests.conftest import ROOT, composed

# Overrides and the option that the message proposes.
MEANT = {
    "lr=1e-3": "optim.lr=1e-3",
    "learning_rate=1e-3": "optim.lr=1e-3",
    "epochs=3": "trainer.max_epochs=3",
    "batch_size=4": "data.batch_size=4",
    "max_new_tokens=9": "generation.max_new_tokens=9",
    "r=8": "peft.r=8",
    "limit=100": "data.limit=100",
    "path=rows.csv": "data.path=rows.csv or model.path=rows.csv",
    "val=0.2": "data.split.val=0.2",
    "temperature=0.5": "generation=sample generation.temperature=0.5",
    "generation.temperature=0.5": "generation=sample generation.temperature=0.5",
    "load_in_4bit=true": "peft=qlora",
    "bf16=true": "trainer.precision=bf16-mixed",
    "system=Be brief": "'data.system=Be brief'",
    "peft=full": "peft=none",
    "trainer=cuda": "trainer=gpu",
    "trainer=mps": "trainer.accelerator=mps",
    "optim=adam": "optim=adamw",
    "scheduler=linar": "scheduler=linear",
    "data=support.csv": "data.path=support.csv",
    "data=chats.jsonl": "data.path=chats.jsonl",
    "data=other.csv": "data.path=other.csv",
    "data=tatsu-lab/alpaca": "data=custom data.path=tatsu-lab/alpaca",
    "data=my rows.csv": "'data.path=my rows.csv'",
    "model=google/flan-t5-small": "model=flan_t5_small",
    "model=Qwen/Qwen3-0.6B": "model=qwen3_0_6b",
    "model=owner/My-Model-1B": "model=auto model.path=owner/My-Model-1B",
    "model=./my model": "model=auto 'model.path=./my model'",
    "model=my-run": "model=auto model.path=my-run/model",
    "model=Gpt2-Medium": "model=gpt2_medium",
}


GROUPS = ("data", "model", "peft", "trainer", "optim", "scheduler")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("support.csv").write_text("question,answer\nhi,there\n")
    Path("other.csv").write_text("a1,b1\nx,y\n")
    Path("chats.jsonl").write_text('{"messages": []}\n')
    Path("my-run/model").mkdir(parents=True)
    Path("my-run/run.json").write_text("{}")


@pytest.fixture(scope="module")
def known():
    return config_keys(composed())


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("override", MEANT)
def test_the_option_that_is_meant(override, known):
    key = override.partition("=")[0]
    is_option = key in GROUPS
    reason = "Could not find" if is_option else "Could not override"
    explain = Explanation(known, (conf_dir(),), {})
    fault = explain(quoted(override, multirun=False), reason)
    named = f"{override}: no such option" if is_option else f"{key}: no such key"
    assert fault == f"{named}. Did you mean {MEANT[override]}?"


def test_the_proposed_options_are_accepted(known):
    for option in {option for meant in MEANT.values() for option in shlex.split(meant) if option != "or"}:
        key, _, name = option.partition("=")
        assert key in known or key.startswith(("data.columns.", "generation.temperature")), option
        assert key not in GROUPS or (conf_dir() / key / f"{name}.yaml").is_file(), option


@pytest.mark.usefixtures("files")
def test_all_faults_of_a_line(capsys):
    assert run(["data=support.csv", "lr=1e-3", "epochs=3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "llmft: command line: 3 faults",
        f"  - data=support.csv: no such option. Did you mean {MEANT['data=support.csv']}?",
        "  - lr: no such key. Did you mean optim.lr=1e-3?",
        "  - epochs: no such key. Did you mean trainer.max_epochs=3?",
    ]


def test_every_synonym_is_a_key_or_option(known):
    for name, meant in SYNONYMS.items():
        key, _, value = meant.partition("=")
        assert key in known, name
        assert key not in GROUPS or not value or (conf_dir() / key / f"{value}.yaml").is_file(), name


def test_an_adapter_as_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    hint = option_hint("model", str(tmp_path), ["gpt2"])
    assert hint == f" Did you mean peft=lora peft.adapter={tmp_path}, with model=... as it was trained on?"


def test_a_yaml_file_as_option():
    assert option_hint("experiment", "mine.yaml", ["none"]) == (
        " Files of your own are options with --config-dir=DIR: DIR/experiment/mine.yaml is experiment=mine"
    )
    assert option_hint("optim", "conf/optim/adamw.yaml", ["adamw"]) == " Did you mean optim=adamw?"


def test_the_values_of_a_sweep_are_in_the_hint_once(capsys):
    assert run(["-m", "lr=1e-3,1e-4", "seed=1,2"]) == 2
    assert (
        capsys.readouterr().err
        == "llmft: command line: 1 fault\n  - lr: no such key. Did you mean optim.lr=1e-3,1e-4?\n"
    )


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--info"]])
def test_a_wrong_key_beside_a_flag_that_only_prints(flags, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["output_dir=run", "lr=1e-3", *flags]) == 2
    assert "lr: no such key. Did you mean optim.lr=1e-3?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lr 1e-3", "command line: 1 fault\n  - --lr=1e-3: options have no dashes; write optim.lr=1e-3"),
        ("--learning-rate=1e-3 -m", "command line: 1 fault\n  - --learning-rate=1e-3: options have no dashes; write optim.lr=1e-3"),
        ("--model tiny_gpt2", "command line: 1 fault\n  - --model=tiny_gpt2: options have no dashes; write model=tiny_gpt2"),
        ("answer --run x --question a", "command line: 2 faults\n  - --run=x: options have no dashes; write run=x\n"),
        ("seed=1 -x", "command line: 1 fault\n  - -x: no such flag; options have no dashes: key=value"),
        ("seed=1 --cfg", "--cfg: needs one of job, hydra, all"),
        ("--cfg seed=1", "--cfg: needs one of job, hydra, all"),
        ("seed=1 --cfg jobs", "command line: argument --cfg/-c: invalid choice: 'jobs' (choose from"),
        ("--config-dir", "--config-dir: needs a value"),
        ("optim.lr = 1e-3", "optim.lr: no such command. Options have no spaces: optim.lr=1e-3 There are: train, "),
        ("optim.lr: 1e-3", "optim.lr:: no such command. Options have no spaces: optim.lr=1e-3 There are: train, "),
    ],
)  # fmt: skip
def test_flags_and_spaces_where_an_option_is_meant(line, message, capsys):
    assert run(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"llmft: {message}")


def test_a_key_of_another_command():
    (fault,) = composition_faults("preview", ["peft.r=4"])
    assert (
        fault
        == "peft.r: no such key. Available: model, data, prompt, seed, format, preview, allow_targets, allow_writes"
    )


def test_no_text_of_the_source_proposes_an_option_that_a_shell_would_expand():
    """Brackets and braces act in shells: ``allow_targets=[x]`` is a pattern of bash, and an error in zsh."""
    naked = re.compile(r"(?<!['\w.])[a-z_]+(\.[a-z_]+)*=[\[{][^\]}]")
    sources = sorted((ROOT / "src" / "llmft").rglob("*.py"))
    assert len(sources) > 100
    found = {}
    for file in sources:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        found |= {match[0]: file.name for text in texts if text not in docs for match in naked.finditer(text)}
    assert found == {
        "callbacks=[G": "trainer_check.py",  # Python, for lightning.Trainer
        "callbacks=[*": "trainer_check.py",
        "hydra.searchpath=[f": "compose.py",  # for Hydra itself
    }


def test_no_idea_is_no_hint():
    assert key_hint("zzz", "1", ["optim", "optim.lr"]) == ""
    assert option_hint("optim", "zzz", ["adamw"]) == ""


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("model.new_tokens=[<ROAD>]", ["<ROAD>"]),
        ("model.new_tokens=[<ROAD>, <RAIL>,plain,7]", ["<ROAD>", "<RAIL>", "plain", 7]),
        ('model.new_tokens=["<ROAD>","a b"]', ["<ROAD>", "a b"]),
        ("peft.targets=[q_proj,v_proj]", ["q_proj", "v_proj"]),
        ("data.columns.instruction=Question (English)", "Question (English)"),
        ("data.columns.output=a<b", "a<b"),
        ("data.path=[a<b.csv]", ["a<b.csv"]),
    ],
)
def test_values_with_punctuation(argument, value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(quoted(argument, multirun=False)).value() == value


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.new_tokens=[<ROAD>", "is no value that can be read; write a list, with its items in quotes: "
         "'model.new_tokens=[\"one\",\"two\"]'"),
        ("data.columns={a", "is no value that can be read; write the value in quotes: 'data.columns=\"{a\"'"),
        ("hello", "options are key=value, and the command is the first word"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("multirun", [False, True])
def test_a_value_that_cannot_be_read(argument, message, multirun, capsys):
    assert run([*(["-m"] if multirun else []), "seed=1", argument]) == 2
    assert capsys.readouterr().err == f"llmft: command line: 1 fault\n  - {argument}: {message}\n"
