"""docs/support.md is made from its tables, and names nothing that is not there."""

import ast
import shlex
from collections.abc import Iterator

import pytest

from llmft.config.hydra_precheck import swept_jobs
from llmft.config.schema import COMMANDS
from llmft.config.validate import check
from tests.conftest import ROOT
from tests.support.docs_scripts import docs_script
from tests.support.support_goals import GOALS
from tests.support.support_matrix import FAMILY, REFUSALS, TABLES, Setting, settings, status
from tests.unit.docs.test_docs import parts


def test_the_page_is_up_to_date():
    made = docs_script("make_support")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_support.py"


def test_a_status_by_hand():
    assert status(Setting("T5", "QLoRA NF4", "packed")) == "tested"
    assert status(Setting("T5", "QLoRA NF4", "packed", device="FSDP on CPUs")) == "refused"
    assert status(Setting("causal", "QLoRA NF4", "packed", device="FSDP on GPUs")) == "not run"
    assert status(Setting("causal", "full", export="adapter")) == "refused"


def test_every_refusal_is_in_a_table():
    assert all(any(refusal.applies(setting) for setting in settings()) for refusal in REFUSALS)


def test_a_cell_shows_the_families_where_they_differ():
    made = docs_script("make_support")
    packed = made.cell([Setting(family, batching="packed", device="FSDP on CPUs") for family in FAMILY])
    assert packed == "T5, BART: refused [5](#refusals)<br>causal: tested"
    assert made.cell([Setting(family) for family in FAMILY]) == "tested"


def named_tests() -> Iterator[str]:
    for table in TABLES:
        for tests in table.evidence.values():
            yield from tests
    yield from (goal.test for goal in GOALS if goal.test)


@pytest.mark.parametrize("test", sorted(set(named_tests())))
def test_every_named_test_is_there_and_runs_without_a_gpu(test):
    file, _, name = test.partition("::")
    assert not file.startswith("tests/gpu/")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    marks = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    assert not any(f"mark.{mark}" in marks for mark in ("gpu", "skip", "xfail", "network", "real"))


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.goal)
def test_the_command_of_a_goal_composes(goal, load):
    command, overrides, multirun = parts(shlex.split(goal.command))
    for job in swept_jobs(overrides) if multirun else [overrides]:
        cfg = load(*job, command=command)
        check(cfg, COMMANDS[command])
        on_gpu = "trainer" in cfg and cfg.trainer.accelerator == "gpu"
        assert on_gpu == (not goal.test)  # without a GPU nothing shows that it runs
