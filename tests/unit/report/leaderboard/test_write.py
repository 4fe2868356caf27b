"""Leaderboards: runs grouped over seeds, compared with the best, and safe to show."""

import csv
import math

import pytest

from llmft.report import leaderboard
from llmft.utils.errors import UserError
from tests.support.report_runs import MARKED, make_run, shown


def test_nothing_in_a_leaderboard_in_markdown_can_act(tmp_path):
    make_run(tmp_path / "a", model=MARKED, loss=1.0)
    make_run(tmp_path / "b", model="other", loss=1.5)
    make_run(tmp_path / "dead", status="failed", words=MARKED)
    found = shown(leaderboard.write_leaderboard(tmp_path).text)
    assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert found.tags.count("td") == 2 * found.tags.count("th")
    for text in ("<script>alert(1)</script>", "[a](javascript:alert(3)) ![b]", "`d` | e", "&amp;"):
        assert sum(text in t for t in found.texts) == 2, text


def test_a_leaderboard_joins_seeds_and_says_what_is_noise(tmp_path):
    for seed, loss in enumerate((1.00, 1.02, 0.98)):
        make_run(tmp_path / f"a{seed}", seed=seed, model="good", loss=loss)
    for seed, loss in enumerate((1.01, 1.03, 1.00)):
        make_run(tmp_path / f"b{seed}", seed=seed, model="like", loss=loss)
    for seed, loss in enumerate((1.50, 1.55, 1.45)):
        make_run(tmp_path / f"c{seed}", seed=seed, model="bad", loss=loss)
    for name in ("dead", "lost"):
        make_run(tmp_path / name, status="failed", words="out | of luck")
    make_run(tmp_path / "slow", status="pruned", words="pruned at step 5: worse")
    text = leaderboard.write_leaderboard(tmp_path).text
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert [row["model"] for row in rows] == ["good", "like", "bad"]
    assert rows[0]["val/loss"] == "1.000 ± 0.020"
    # nats of row n are loss * (1 + n) over 2 tokens: 36 / 16 nats per token at a loss of 1
    assert rows[0]["loss (shared rows)"] == "2.250 ± 0.045"
    assert rows[0]["chrf (shared rows)"].startswith("100.0 ± 0")
    assert rows[0]["seeds"] == "0, 1, 2"
    assert rows[0]["against the best"] == "the best"
    assert rows[1]["against the best"].startswith("no difference seen: +0.01333")
    assert rows[2]["against the best"].startswith("worse: +0.5 (")
    assert (rows[0]["trained %"], rows[0]["tokens/s"], rows[0]["peak MiB"], rows[0]["time"]) == (
        "1.000",
        "105.0",
        "500.0",
        "60 s",
    )
    assert (tmp_path / "leaderboard.png").read_bytes()[:4] == b"\x89PNG"
    assert "not ranked: dead, lost: failed, out \\| of luck" in text
    assert "not ranked: slow: pruned at step 5: worse" in text
    page = (tmp_path / "leaderboard.html").read_text()
    assert '<span class="anywhere">model=good</span>' in page
    assert "12 runs below" in page
    assert "3 configurations by val/loss" in page


def test_a_run_whose_objective_is_nan_is_not_ranked(tmp_path):
    for name, loss in (("a", 1.0), ("b", math.nan), ("c", 0.5)):
        make_run(tmp_path / name, model=name, loss=loss)
    assert '"objective": NaN' in (tmp_path / "b" / "run.json").read_text()
    text = leaderboard.write_leaderboard(tmp_path).text
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert [row["model"] for row in rows] == ["c", "a"]
    assert "not ranked: b: finished, without an objective" in text


def test_single_runs_are_compared_on_shared_rows(tmp_path):
    make_run(tmp_path / "a", model="good", loss=1.0)
    make_run(tmp_path / "b", model="bad", loss=1.5)
    leaderboard.write_leaderboard(tmp_path)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert rows[1]["against the best"].startswith("worse: +")
    assert "loss over 8 shared rows" in rows[1]["against the best"]
    with pytest.raises(UserError, match="contains no run directory"):
        leaderboard.write_leaderboard(tmp_path / "a" / "report")
