"""Candidates of the shell completion, and what they import."""

import subprocess
import sys

import pytest

from llmft.__main__ import COMMANDS
from llmft.config.help import answer


def offered(*words: str) -> list[str]:
    """The candidates for the last word."""
    text = answer(["__complete", *words], list(COMMANDS))
    assert text is not None
    return [line.partition("\t")[0] for line in text.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], ["train", "trainer=", "trainer."]),
        (["expo"], ["export"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["--cfg", "j"], ["job"]),
        (["--ver"], ["--version"]),
        (["data=a"], ["data=academic", "data=alpaca"]),
        (["hydra/sweeper="], ["hydra/sweeper=optuna"]),
        (["+data@data.sets.mine=cu"], ["+data@data.sets.mine=custom"]),
        (["data.too_long=t"], ["data.too_long=trim_prompt", "data.too_long=trim_answer"]),
        (["data.shuffle="], ["data.shuffle=true", "data.shuffle=false"]),
        (["data.batching=to"], ["data.batching=tokens"]),
        (["preview", "preview."], ["preview.rows=", "preview.ids="]),
        (["export", "z"], ["zip="]),
        (["answer", "pe"], []),  # not a group of answer
        (["evaluate", "data."], ["data.path=", "data.limit="]),
        (["callbacks.nan_guard.ex"], ["callbacks.nan_guard.explode_factor=", "callbacks.nan_guard.explode_steps="]),
        (["callbacks.nan"], ["callbacks.nan_guard."]),
        (["peft=unfreeze", "peft.sch"], ["peft.schedule="]),
        (["peft.sch"], []),
        (["-m", "model=gpt2,tiny_g"], ["model=gpt2,tiny_gemma", "model=gpt2,tiny_gpt2"]),
        (["help=op"], ["help=optim"]),
        (["help", "ex"], ["export", "experiment"]),
        (["++optim.weight_d"], ["++optim.weight_decay="]),
        (["data.split."], ["data.split.train=", "data.split.val=", "data.split.test="]),
        (["data.path="], [":files"]),
        (["export", "run=out"], [":files"]),
        (["data.sets.academic.path=x"], [":files"]),
        (["--config-dir="], [":files"]),
        (["no_such_key=x"], []),
    ],
)
def test_candidates(words: list[str], expected: list[str]):
    assert offered(*words) == expected


def test_an_empty_word_offers_commands_groups_and_keys_without_templates():
    found = offered("")
    assert set(COMMANDS) <= set(found)
    assert {"model=", "seed=", "completion", "help="} <= set(found)
    assert not [word for word in found if word.startswith("_") or word.endswith(".")]
    assert "train" not in offered("train", "")


def test_a_users_options_are_offered(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "our_own.yaml").write_text("name: our_own\n")
    assert offered(f"--config-dir={tmp_path}", "model=our") == ["model=our_own"]
    assert offered("--config-dir", str(tmp_path), "model=our") == ["model=our_own"]


def test_a_complete_word_is_offered_too():
    """Otherwise a shell would replace it by the only longer one."""
    assert offered("model=gpt2") == ["model=gpt2", "model=gpt2_medium"]
    assert offered("export") == ["export"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llmft answer inp", ["input=", "input_format="]),
        ("llmft answer form", ["format="]),
        ("llmft data=academic ", offered("data=academic", "")),
        ("llmft answer question='what is t", []),  # inside quotes
    ],
)
def test_a_line_of_bash_is_split_into_words(line: str, expected: list[str]):
    assert offered("--bash", line) == expected


def test_a_tab_imports_no_library_once_the_index_is_there_and_help_pydantic_at_most():
    offered("data.")  # writes the index
    code = """
import sys
from llmft.__main__ import run
heavy = ("hydra", "omegaconf", "pydantic", "torch", "transformers", "lightning")
for lines in ([["__complete", "data."], ["--version"], ["--help"]], [["train", "--help"], ["help=data"], ["completion", "bash"]]):
    codes = [run(line) for line in lines]
    print(codes, [name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines() == ["[0, 0, 0] []", "[0, 0, 0] ['pydantic']"]
