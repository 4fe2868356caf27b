"""What a command line imports before it answers: seconds of libraries are paid by what needs them alone."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmft.__main__ import run
from llmft.config.schema import TrainConfig
from llmft.config.validate import check, check_early
from llmft.models.backbone.quantization import deferred_compile
from llmft.utils.errors import UserError

HEAVY = ("torch", "transformers", "lightning", "peft", "datasets", "pandas", "pyarrow", "numpy")
ASKED = """
import sys
from llmft.__main__ import run
codes = []
for line in {lines}:
    try:
        codes.append(run(line))
    except SystemExit as stop:
        codes.append(stop.code)
print(codes, [name for name in {heavy} if name in sys.modules], file=sys.__stderr__)
"""


def said(lines: list[list[str]], heavy: tuple[str, ...] = HEAVY, **options: Any) -> str:
    """Exit codes of command lines that one process runs, and which of the libraries it has imported."""
    code = ASKED.format(lines=lines, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)
    return done.stderr.splitlines()[-1]


def test_help_config_and_faults_of_it_need_no_library(tmp_path):
    lines = [
        ["--help"],
        ["--cfg", "job"],
        ["no_such_command"],
        ["data.batchsize=8"],
        ["data.batch_size=0", "model=tiny_gpt2", "output_dir=run"],
        ["answer", "generation.batch_size=0"],
        ["trainer.max_epochs=-1", "output_dir=run"],
    ]
    assert said(lines, cwd=tmp_path) == "[0, 0, 2, 2, 2, 2, 2] []"


def test_the_config_is_shown_without_the_schema(tmp_path):
    assert said([["--cfg", "job"]], ("pydantic",), cwd=tmp_path) == "[0] []"


@pytest.mark.slow
def test_preview_imports_no_adapters_and_no_hub_data_sets(tmp_path):
    lines = [["preview", "model=tiny_gpt2", "preview.rows=1"]]
    # Lightning it needs: a data set is a LightningDataModule
    assert said(lines, ("lightning", "peft", "datasets"), cwd=tmp_path) == "[0] ['lightning']"


def test_values_are_checked_early_with_the_same_words(load: Callable[..., Any]):
    overrides = ["data.batch_size=0", "trainer.max_epochs=-1", "model=tiny_gpt2"]
    cfg = load(*overrides)
    with pytest.raises(UserError) as early:
        check_early(cfg, "train", overrides)
    with pytest.raises(UserError) as late:
        check(cfg, TrainConfig)
    assert str(early.value) == str(late.value)


@pytest.mark.parametrize(
    "more",
    ["generation.do_sample=true", "+optim.nesterov=1", "model.lora_targets=[x]", "optim._target_=torch.optim.SGD"],
)
def test_what_needs_a_library_is_told_together_with_the_values(more: str, load: Callable[..., Any]):
    overrides = ["data.batch_size=0", more]
    check_early(load(*overrides), "train", overrides)  # says nothing; check says all


def test_a_resumed_run_is_checked_by_its_own_config(load: Callable[..., Any]):
    check_early(load("resume=somewhere", "data.batch_size=0"), "train", [])


def test_a_function_is_compiled_when_it_is_first_called(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, dict[str, Any]]] = []

    def compile_now(function: Any, **options: Any) -> Any:
        seen.append((function.__name__, options))
        return function

    monkeypatch.setattr(torch, "compile", compile_now)
    with deferred_compile():

        @torch.compile(dynamic=False)
        def double(x: int) -> int:
            return 2 * x

        plain = torch.compile(lambda x: x + 1)
    assert seen == []
    assert torch.compile is compile_now
    assert [double(2), double(3), plain(4)] == [4, 6, 5]
    assert seen == [("double", {"dynamic": False}), ("<lambda>", {})]
    assert double.__name__ == "double"


@pytest.mark.parametrize("where", ["llmft.config.cli_args.check_command_line", "llmft.sweep.results.end"])
def test_a_signal_before_or_after_the_work_ends_with_130(where, tmp_path, monkeypatch):
    """In a sweep the tables are written when Hydra is done."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, interrupted)
    monkeypatch.setattr("hydra.main", lambda **_: lambda _: lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run(["-m", "seed=1,2"]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
