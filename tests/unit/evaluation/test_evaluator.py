"""What an evaluation writes into ``run.json``."""

import pytest

from llmft.evaluation.evaluator import completed

FOUND = {"split": "val", "headline": "Better.", "scores": {"f1": {"tuned": 50, "base": 40}, "loss": {"tuned": 2}}}


def test_the_evaluation_of_a_run_that_was_stopped_in_its_own_completes_it():
    record = {"status": "interrupted", "metrics": {"before": {"val/loss": 3}, "after": {"val/loss": 2}}}
    assert completed(record, FOUND) == {
        "status": "finished",
        "metrics": {
            "before": {"val/loss": 3},
            "after": {"val/loss": 2},
            "val_scores": {"f1": 50, "loss": 2},
            "val_scores_base": {"f1": 40},
            "headline": "Better.",
        },
    }


@pytest.mark.parametrize(("status", "metrics"), [("interrupted", {"before": {}}), ("finished", {"after": {}})])
def test_other_runs_stay_what_they_are(status, metrics):
    assert completed({"status": status, "metrics": metrics}, FOUND) == {}
