"""Sections of a report that are made from data."""

from llmft.report.blocks import blocks

MEANS = {"rows": 3, "loss_before": 2.0, "loss_after": 2.5, "kl": 0.25}
RETENTION = {
    **MEANS,
    "categories": {"facts": {**MEANS, "rows": 1, "kl": 0.5}, "small talk": {**MEANS, "rows": 2}},
    "flagged": True,
    "sentence": "what it forgot: general ability",
    "changed": None,
}


def test_retention_per_category():
    (block,) = blocks({}, {"retention": RETENTION})
    assert block.amber
    assert block.sentences[0] == "what it forgot: general ability"
    assert block.rows == (
        ("facts", "1", "2.000", "2.500", "0.500"),
        ("small talk", "2", "2.000", "2.500", "0.250"),
        ("all", "3", "2.000", "2.500", "0.250"),
    )


def test_changed_answers_are_listed():
    row = {"id": "1", "category": "facts", "question": "What is 1 + 1?", "base": "2", "tuned": "3"}
    first, second = blocks({}, {"retention": {**RETENTION, "changed": [row] * 30, "rows": 120}})
    assert first.id == "retention"
    assert second.sentences[0].startswith("30 of 120 answers differ")
    assert len(second.rows) == 20
    assert second.rows[0] == ("facts", "What is 1 + 1?", "2", "3")
