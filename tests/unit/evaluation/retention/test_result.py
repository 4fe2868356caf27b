"""Means per category, what flags a model, and the sentence of the verdict."""

import math

import pytest

from llmft.evaluation.retention.result import Measured, recorded, summarize

FACTS = Measured("facts", before=(10.0, 5), after=(12.0, 5), kl=1.0, answer_tokens=10, rest=0.1)
TALK = Measured("small talk", before=(30.0, 15), after=(33.0, 15), kl=2.0, answer_tokens=20, rest=0.2)


def test_means_are_over_tokens():
    found = summarize([FACTS, TALK])
    assert (found["rows"], found["tokens"], found["answer_tokens"]) == (2, 20, 30)
    assert found["loss_before"] == pytest.approx(2.0)  # 40 / 20, not the mean of 2 and 2
    assert found["loss_after"] == pytest.approx(2.25)  # 45 / 20, not the mean of 2.4 and 2.2
    assert found["kl"] == pytest.approx(0.1)
    assert found["rest"] == pytest.approx(0.01)
    assert found["categories"]["facts"]["loss_after"] == pytest.approx(2.4)
    assert list(found["categories"]) == ["facts", "small talk"]


@pytest.mark.parametrize(
    ("after", "kl", "flagged"),
    [
        (10.0, 0.0, False),
        (8.0, 0.0, False),
        (20.0, 0.0, True),
        (10.0, 40.0, True),
        (math.nan, 0.0, True),
        (10.0, math.nan, True),
    ],
)
def test_flagged_by_loss_or_by_kl(after, kl, flagged):
    found = summarize([FACTS._replace(after=(after, 5), kl=kl)])
    assert found["flagged"] is flagged
    assert found["sentence"].startswith("what it forgot: ")
    assert ("little" in found["sentence"]) is not flagged


def test_the_sentence_states_rows_loss_and_kl():
    said = "on 2 general rows loss 2.00 -> 2.25, KL from the base 0.10 nats per token"
    assert said in summarize([FACTS, TALK])["sentence"]


def test_the_record_counts_changed_answers():
    found = summarize([FACTS])
    assert recorded({**found, "changed": [{"id": "1"}, {"id": "2"}]})["changed"] == 2
    assert recorded({**found, "changed": None})["changed"] is None
