"""Which settings tell runs apart."""

from llmft.report.leaderboard.settings import differing_settings, grouped, typed_settings
from tests.unit.report.leaderboard.boards import run


def test_the_trial_of_a_search_is_no_setting():
    runs = [
        run(
            settings={
                "optim.lr": lr,
                "callbacks.pruning.trial": n,
                "callbacks.pruning.study": "s",
                "seed": n,
                "data.seed": n,
            }
        )
        for n, lr in enumerate((1e-3, 1e-3, 1e-2))
    ]
    assert differing_settings(runs) == ["optim.lr"]
    assert [len(of) for of in grouped(runs, ["optim.lr"])] == [2, 1]


def test_what_follows_from_the_command_line_is_left_out():
    """The learning rate is the adapter's own; ``r`` and the weight decay were both typed, although each tells all runs apart."""
    typed = frozenset({"peft", "peft.r", "optim.weight_decay"})
    runs = [
        run(
            typed=typed,
            settings={"peft.name": name, "peft.r": r, "peft.alpha": 2 * r, "optim.lr": lr, "optim.weight_decay": decay},
        )
        for name, r, lr, decay in (("none", 0, 1e-5, 0.1), ("lora", 8, 1e-4, 0.2), ("lora", 16, 1e-4, 0.3))
    ]
    assert differing_settings(runs) == ["peft.name", "peft.r", "optim.weight_decay"]


def test_a_run_that_failed_early_is_told_apart_by_what_was_typed():
    typed = frozenset({"peft.r"})
    runs = [run(typed=typed, settings={"peft.r": 4, "optim.lr": 1e-3}), run(typed=typed, settings={"peft.r": 8})]
    assert typed_settings(runs) == ["peft.r"]
