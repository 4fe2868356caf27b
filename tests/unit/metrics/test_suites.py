"""What lm-evaluation-harness returns, as entries of the table of scores."""

import io

import numpy as np
import pytest

from llmft.metrics.format import print_scores
from llmft.metrics.suites import all_scores, suite_scores
from llmft.utils.console import Console


def results(acc, ppl, *, stderr=0.05):
    """One task with a value per row, and one score that is no mean; the shape of ``lm_eval.evaluator.evaluate``."""
    return {
        "results": {
            "quiz": {"name": "quiz", "alias": "quiz", "sample_len": len(acc), "acc,none": np.float64(np.mean(acc)), "acc_stderr,none": stderr},
            "text": {"name": "text", "alias": "text", "sample_len": 9, "ppl,none": ppl, "ppl_stderr,none": "N/A", "note,none": " "},
        },
        "higher_is_better": {"quiz": {"acc": True}, "text": {"ppl": False}},
        "n-shot": {"quiz": 2, "text": 0},
        "n-samples": {"quiz": {"original": 99, "effective": len(acc)}},
        "samples": {"quiz": [{"doc_id": i, "filter": "none", "acc": value} for i, value in enumerate(acc)]},
    }  # fmt: skip


def scores(tuned, base=None):
    return suite_scores(tuned, base, version="0.4.13", resamples=200, seed=1)


def test_a_mean_over_rows_is_compared_row_by_row():
    # 10 of 40 rows are right before, the same and 20 more after
    before = [1] * 10 + [0] * 30
    after = [1] * 30 + [0] * 10
    entry = scores(results(after, 5.0), results(before, 6.0))["quiz"]["acc"]
    assert (entry["base"], entry["tuned"], entry["difference"]) == (0.25, 0.75, 0.5)
    assert (entry["base_stderr"], entry["tuned_stderr"]) == (0.05, 0.05)
    low, high = entry["difference_interval"]
    assert 0.3 < low < 0.5 < high < 0.7  # 0.5 +- 1.96 * sqrt(0.25 / 40)
    assert entry["verdict"] == "better"
    assert entry["definition"] == "lm-evaluation-harness 0.4.13, 2-shot, 40 rows"
    assert scores(results(before, 5.0), results(after, 6.0))["quiz"]["acc"]["verdict"] == "worse"


def test_rows_are_paired_by_id():
    tuned, base = results([1] * 20 + [0] * 20, 5.0), results([1] * 20 + [0] * 20, 5.0)
    base["samples"]["quiz"].reverse()
    assert scores(tuned, base)["quiz"]["acc"]["difference_interval"] == [0.0, 0.0]


def test_another_score_has_the_harness_error_and_no_paired_interval():
    tuned, base = results([1] * 8, 5.0), results([1] * 8, 6.0)
    for found, error in ((tuned, 0.5), (base, 0.25)):
        found["results"]["text"]["ppl_stderr,none"] = error
    entry = scores(tuned, base)["text"]["ppl"]
    assert entry["tuned_interval"] == pytest.approx([4.02, 5.98])
    assert entry["base_interval"] == pytest.approx([5.51, 6.49])
    assert (entry["difference"], entry["difference_interval"], entry["verdict"]) == (-1.0, None, None)
    assert entry["better"] == "lower"
    # a value per row whose mean is another number than the score
    tuned["results"]["quiz"]["acc,none"] = 0.5
    assert scores(tuned, base)["quiz"]["acc"]["difference_interval"] is None


def test_without_a_base_and_with_few_rows():
    entry = scores(results([1, 0, 1], float("nan")))["quiz"]["acc"]
    assert "base" not in entry
    assert entry["tuned"] == pytest.approx(2 / 3)
    assert entry["tuned_interval"] is None
    assert scores(results([1, 0, 1], float("nan")))["text"] == {}  # neither a NaN nor a text is a score


def test_a_score_without_standard_error_has_no_interval():
    entry = scores(results([1, 0, 1], 5.0))["text"]["ppl"]
    assert (entry["tuned"], entry["tuned_stderr"], entry["tuned_interval"]) == (5.0, None, None)


@pytest.mark.parametrize("interval", [{"tuned_interval": None}, {}], ids=["none", "earlier version"])
def test_a_score_without_interval_is_printed(interval):
    suites = {"text": {"ppl": {"better": "lower", "tuned": 5.0, "tuned_stderr": None, **interval}}}
    found = {"source": "f", "split": "test", "rows": 0, "of": 9, "scores": {}, "suites": suites}
    printed = io.StringIO()
    print_scores(found, Console(file=printed, width=80))
    assert "text: ppl" in printed.getvalue()
    assert printed.getvalue().splitlines()[1].split() == ["score", "value", "95", "%", "interval"]


def test_a_group_stands_for_its_tasks():
    found = results([1] * 8, 5.0)
    found["results"]["both"] = {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": "both"}
    found |= {"groups": {"both": {}}, "group_subtasks": {"both": ["quiz", "inner"], "inner": ["text"]}}
    entries = scores(found)
    assert entries["quiz"]["acc"]["part_of"] == entries["text"]["ppl"]["part_of"] == "both"
    shown = all_scores({"scores": {"loss": {"tuned": 1.0}}, "suites": entries})
    assert list(shown) == ["loss", "both: acc"]


def test_a_filter_is_part_of_the_name():
    found = results([1] * 8, 5.0)
    found["results"]["quiz"] = {"exact_match,strict": 0.25, "exact_match,loose": 0.5}
    found["samples"]["quiz"] = [
        {"doc_id": i, "filter": kind, "exact_match": float(i < right)}
        for kind, right in (("strict", 2), ("loose", 4))
        for i in range(8)
    ]
    entries = scores(found)["quiz"]
    assert list(entries) == ["exact_match (strict)", "exact_match (loose)"]
    assert entries["exact_match (strict)"]["tuned_interval"] is not None
    assert entries["exact_match (strict)"]["tuned_interval"] != entries["exact_match (loose)"]["tuned_interval"]
