"""What groups are ranked by: never a loss per token across tokenizers, never different rows."""

import pytest

from llmft.report.leaderboard.ranking import ranked
from tests.unit.report.leaderboard.boards import group, rows, run

SAME = {"rows": 2, "identity": "x"}
TEXTS = ["abcd", "efgh", "ijkl", "mnop", "qrst", "uvwx"]  # 4 bytes each


def order(found):
    return [g.label for g in found]


def test_the_objective_ranks_where_rows_and_tokens_are_the_same():
    groups = [group("a", objective=2.0, validation=SAME | {"tokens": 10, "bytes": 20}),
              group("b", objective=1.0, validation=SAME | {"tokens": 10, "bytes": 20})]  # fmt: skip
    found, criterion, _ = ranked(groups, "val/loss")
    assert (order(found), criterion.name, criterion.why) == (["b", "a"], "val/loss", "")


@pytest.mark.parametrize("objective", ["val/loss", "val/perplexity"])
def test_losses_of_different_tokenizers_are_ranked_per_byte(objective):
    """a: 1 nat x 40 tokens / 40 bytes = 1; b: 2 nats x 10 tokens / 40 bytes = 0.5, although its loss per token is higher."""
    values = {"val/loss": (1.0, 2.0), "val/perplexity": (2.718281828459045, 7.38905609893065)}[objective]
    groups = [
        group(name, objective=value, monitor=objective, validation=SAME | {"tokens": tokens, "bytes": 40})
        for name, value, tokens in (("a", values[0], 40), ("b", values[1], 10))
    ]
    found, criterion, _ = ranked(groups, objective)
    assert (order(found), criterion.name) == (["b", "a"], "val nats/byte")
    assert [g.value for g in found] == pytest.approx([0.5, 1.0])
    assert criterion.why == "tokenizers differ, so losses per token cannot be compared"


def test_runs_of_other_validation_rows_are_ranked_over_the_rows_that_they_share():
    """Over the shared rows a has 1 nat and b 3 nats per token; the first row, which b does not have, would put a last."""
    a = rows(TEXTS, [99.0, 4, 4, 4, 4, 4], [4] * 6)
    b = rows(TEXTS[1:], [12.0] * 5, [4] * 5)
    groups = [group("a", objective=9.0, validation={"identity": "x", "tokens": 24, "bytes": 24}, predictions=a),
              group("b", objective=1.0, validation={"identity": "y", "tokens": 20, "bytes": 20}, predictions=b)]  # fmt: skip
    found, criterion, shared = ranked(groups, "val/loss")
    assert (order(found), criterion.name) == (["a", "b"], "loss (shared rows)")
    assert [g.value for g in found] == [1.0, 3.0]
    assert shared is not None
    assert (len(shared), shared.most) == (5, 6)


def test_shared_rows_of_different_tokenizers_are_ranked_per_byte():
    """a: 24 nats / 24 tokens, 24 bytes; b: 18 nats / 6 tokens, 24 bytes."""
    groups = [group("a", objective=1.0, predictions=rows(TEXTS, [4.0] * 6, [4] * 6), data={"kept": 6}),
              group("b", objective=3.0, predictions=rows(TEXTS, [3.0] * 6, [1] * 6), data={"kept": 5})]  # fmt: skip
    found, criterion, shared = ranked(groups, "val/loss")
    assert (order(found), criterion.name) == (["b", "a"], "nats/byte (shared rows)")
    assert [g.value for g in found] == [0.75, 1.0]
    assert criterion.why == "tokenizers and validation rows differ between configurations"
    assert shared is not None
    assert not shared.has("loss")
    assert found[1].against is not None
    assert found[1].against[0] == "worse"
    assert found[1].against[1].startswith("+0.25 (")


def test_losses_that_include_prompts_are_not_compared_across_tokenizers():
    on_all = {"data.train_on": "all"}
    groups = [group("a", objective=1.0, settings=on_all, predictions=rows(TEXTS, [4.0] * 6, [4] * 6), validation=SAME),
              group("b", objective=3.0, settings=on_all, predictions=rows(TEXTS, [3.0] * 6, [1] * 6), validation=SAME)]  # fmt: skip
    _, criterion, _ = ranked(groups, "val/loss")
    assert criterion.name == "chrf (shared rows)"


def test_nothing_to_compare_by_is_said():
    groups = [
        group("a", objective=1.0, validation={"identity": "x"}),
        group("b", objective=3.0, validation={"identity": "y"}),
    ]
    found, criterion, _ = ranked(groups, "val/loss")
    assert order(found) == ["a", "b"]
    assert criterion.why == "validation rows differ between configurations, and they share no evaluated rows"
    assert not criterion.comparable
    assert found[1].against is None


def test_seeds_with_splits_of_their_own_are_compared_seed_by_seed():
    """Two seeds, two validation sets, the same for both groups: their means compare."""
    groups = [group(name) for name in ("a", "b")]
    for of, first in zip(groups, (1.0, 2.0), strict=True):
        of.runs = [
            run(seed=seed, objective=first + seed, validation={"identity": str(seed), "tokens": 5}) for seed in (1, 2)
        ]
    found, criterion, _ = ranked(groups, "val/loss")
    assert (order(found), criterion.name) == (["a", "b"], "val/loss")
    assert [g.value for g in found] == [2.5, 3.5]


def test_one_score_is_compared_alone_as_among_all():
    a, b = rows(TEXTS, [4.0, 8, 2, 4, 6, 4], [4] * 6), rows(TEXTS, [8.0, 8, 4, 9, 6, 4], [4] * 6)
    _, _, shared = ranked(
        [group("a", objective=1.0, predictions=a), group("b", objective=2.0, predictions=b)], "val/loss"
    )
    assert shared is not None
    entry = shared.compare(1, 0, "chrf")
    assert (entry["tuned"], entry["base"], entry["difference"]) == (100.0, 100.0, 0.0)
    entry = shared.compare(1, 0, "loss")
    assert (entry["tuned"], entry["base"]) == (39 / 24, 28 / 24)
