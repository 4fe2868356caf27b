"""Checks that a run may have, as sections of its report."""

from llmft.report.blocks import blocks


def test_the_arithmetic_has_a_line_for_each_step():
    step = {
        "step": 1,
        "loss": 2.5,
        "grad_norm": 0.75,
        "lr": 1e-3,
        "rows": ["f:1", "f:2"],
        "difference": {"loss": 1.2e-7, "grad_norm": 0.0, "lr": 0.0},
    }
    found = {
        "agrees": False,
        "sentence": "they part",
        "not_checked": {"rows of a template without a date": 2},
        "per_step": [step],
    }
    (block,) = blocks({"prove": found}, None)
    assert (block.id, block.amber, block.folded) == ("prove", True, True)
    assert block.sentences == ("they part", "Not checked: rows of a template without a date (2).")
    assert block.rows == (("1", "2.5", "1e-07", "0.75", "0", "0.001", "0", "f:1, f:2"),)


def test_near_duplicates_are_listed_with_their_places():
    line = {"split": "val", "place": "f:3", "train": "f:9", "prompt": 0.756, "reply": 1.0}
    found = {"policy": "report", "threshold": 0.7, "found": 3, "examples": [line]}
    (block,) = blocks({"data": {"near_duplicates": found}}, None)
    assert block.amber
    assert block.sentences[0].startswith("3 held-out rows have a prompt that is nearly one in train")
    assert block.sentences[1] == "Similarity is the Jaccard index of word 5-grams, from 0.7. The first 1 are listed."
    assert block.rows == (("val", "f:3", "f:9", "0.76", "1.00"),)
    assert blocks({"data": {"near_duplicates": {"policy": "report", "found": 0, "examples": []}}}, None) == []
    assert blocks({"data": {"near_duplicates": {"policy": "off", "found": None}}}, None) == []


def test_what_a_model_forgot_is_a_finding():
    found = {
        "flagged": True,
        "sentence": "what it forgot: much",
        "rows": 2,
        "loss_before": 1.0,
        "loss_after": 2.0,
        "kl": 0.5,
    }
    (block,) = blocks({}, {"retention": found})
    assert block.amber
    assert block.sentences[0] == "what it forgot: much"
    assert ("all", "2", "1.000", "2.000", "0.500") in block.rows
