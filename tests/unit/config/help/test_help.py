"""--help, help=GROUP and --version."""

import re
import shlex
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from llmft.__main__ import COMMANDS
from llmft.config.help import answer
from llmft.config.help.catalog import Catalog
from llmft.config.help.examples import EXAMPLES
from llmft.config.help.layout import two_columns
from llmft.config.paths import conf_dir
from llmft.utils.errors import UserError

NAMES = list(COMMANDS)
PAGES = [["--help"], *([name, "--help"] for name in NAMES), *([f"help={g}"] for g in Catalog([conf_dir()]).groups)]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def page(*arguments: str) -> str:
    text = answer(arguments, NAMES)
    assert text is not None
    return text


def test_the_overview_fits_on_a_screen_and_lists_every_command():
    text = page("--help")
    assert text.count("\n") <= 22
    assert re.findall(r"^  (\w+)  +\S", text, re.MULTILINE)[: len(NAMES)] == NAMES
    assert text.count("\n  llmft ") >= 3
    assert page("-h") == page("help") == page("model=gpt2", "--help") == text


def test_every_command_has_examples_of_its_own_keys_and_options():
    catalog = Catalog([conf_dir()])
    assert list(EXAMPLES) == NAMES
    for name, examples in EXAMPLES.items():
        command = catalog.command(name)
        data = set(catalog.keys("data", "custom")) | {"data.path"}
        keys = set(command.keys) | {k for g, d in command.groups.items() for k in catalog.keys(g, d.option)} | data
        for line in examples:
            words = shlex.split(line)[1:]
            assert name == "train" or words[0] == name
            for key, _, value in (word.partition("=") for word in words if "=" in word):
                assert key in keys or value in catalog.groups[key], line


@pytest.mark.parametrize("arguments", PAGES, ids=" ".join)
def test_no_line_is_longer_than_the_terminal_and_no_template_is_shown(arguments: list[str]):
    text = page(*arguments)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"(^|[\s,=])_\w+|hydra\.help", text)


def test_a_commands_page_has_its_keys_sections_and_groups():
    text = page("serve", "--help")
    assert text.startswith("usage: llmft serve run=RUN [group=option ...] [key=value ...]\n\nAn OpenAI-compatible")
    assert "\n\nexamples:\n  llmft serve run=latest serve.port=8000\n\n" in text
    assert re.search(r"\nkeys:\n  seed=42", text)
    assert "\n  serve.port=8000                 Port; 0 picks a free one.\n" in text
    assert re.search(r"\n  safety=none +filters of prompts and answers: none, simple\n", text)
    assert "data=" not in text
    assert page("help", "serve") == page("help=serve") == text


def test_the_flag_may_stand_first_and_a_wrong_command_is_refused(llmft: Callable[..., Any]):
    assert page("--help", "serve") == page("serve", "--help")
    code, _, err = llmft("trian", "--help")
    assert code == 2
    assert err.startswith("llmft: trian: no such command. Did you mean train?")


def test_a_groups_page_has_options_and_the_keys_of_the_chosen_one():
    text = page("help=peft")
    assert "\n  lora (default)  LoRA matrices on frozen weights\n" in text
    assert "\nkeys, with the values of peft=lora:\n" in text
    assert "  peft.quantise=null " in text
    words = " ".join(text.split())
    assert " peft.r=16 Rank of the LoRA matrices. [a whole number of at least 1] " in words
    assert (
        " with nf4 and fp4: auto (by machine), float32, bfloat16 or float16. [auto | float32 | bfloat16 | float16] "
        in words
    )
    assert "\nkeys of peft=unfreeze:\n  peft.unit=epoch " in text
    chosen = page("train", "peft=qlora", "help=peft")
    assert "with the values of peft=qlora" in chosen
    assert "  peft.quantise=nf4 " in chosen


def test_an_option_in_an_option_is_one_line():
    text = page("help=data", "data=mix")
    assert re.search(r"\n  data\.sets\.academic\.\*=\.\.\. +the keys of data=\n", text)
    assert "data.sets.academic.path" not in text


def test_an_experiment_shows_what_it_sets():
    text = page("help=experiment", "experiment=academic_distilgpt2")
    assert "\nexperiment=academic_distilgpt2 sets:\n  model=distilgpt2\n" in text
    assert "\n  trainer.max_epochs=6 " in text


def test_a_section_of_a_command_is_a_topic():
    assert "\nkeys of optim=adamw_8bit, paged_adamw:\n" in page("help=optim")
    assert page("evaluate", "help=data").startswith("data, keys of llmft evaluate:\n  data.path=null")
    assert page("help=evaluate").startswith("usage: llmft evaluate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["help=dta"], r"help=dta: no such group\. Did you mean data\? There are: callbacks, data, "),
        (["preview", "help=judge"], r"help=judge: no such group of preview\. There are: data, model, preview, prompt$"),
        (["help=peft", "peft=qlor"], r"peft=qlor: no such option\. Did you mean qlora\?"),
        (["--config-dir=bad", "help=model"], r"bad/model/x\.yaml: while parsing a flow node"),
        (["completion"], r"completion: which shell\? There are: bash, zsh, fish"),
        (["completion", "bsh"], r"completion bsh: which shell\? Did you mean bash\?"),
    ],
)
def test_a_wrong_topic_is_refused_with_a_hint(arguments: list[str], message: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad/model").mkdir(parents=True)
    (tmp_path / "bad/model/x.yaml").write_text("{")
    with pytest.raises(UserError, match=message):
        answer(arguments, NAMES)


def test_a_users_file_that_is_no_yaml_is_no_fault_of_a_word(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/x.yaml").write_text("{")
    assert answer(["__complete", f"--config-dir={tmp_path}", "model=tiny_t"], NAMES) == ""


def test_version_is_that_of_llmft_then_of_what_computes():
    lines = page("--version").splitlines()
    assert lines[0] == f"llmft {version('llmft')}"
    assert [line.split()[0] for line in lines] == ["llmft", "python", "torch", "transformers", "lightning", "peft"]


@pytest.mark.parametrize(
    "arguments", [[], ["data=academic"], ["answer", "question=--help"], ["--cfg", "job"], ["--hydra-help"]]
)
def test_what_is_no_question_runs_a_command(arguments: list[str]):
    assert answer(arguments, NAMES) is None


def test_hydras_flag_prints_our_script():
    assert page("--shell-completion", "install=bash") == page("-sc", "install=bash") == page("completion", "bash")
    assert "complete -o nospace -o default -F _llmft llmft" in page("completion", "bash")


def test_answers_come_with_exit_code_0_and_refusals_with_2(llmft: Callable[..., Any]):
    assert llmft("--version")[:1] == (0,)
    code, out, err = llmft("help=modle")
    assert (code, out) == (2, "")
    assert err.startswith("llmft: help=modle: no such group. Did you mean model?")


def test_a_long_name_stands_alone():
    rows = {"short": "a word and more words " * 4, "a.name.that.is.very.long": "text"}
    assert two_columns(rows, width=8).splitlines() == [
        "  short   a word and more words a word and more words a word and more words a",
        "          word and more words",
        "  a.name.that.is.very.long",
        "          text",
    ]
