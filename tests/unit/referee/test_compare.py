"""Differences, tolerances and words of the referee."""

import math

from llmft.referee.compare import TOLERANCES, Proof, relative

NUMBERS = {"loss": 2.0, "grad_norm": 1.0, "lr": 1e-3}
NONE = dict.fromkeys(TOLERANCES["float32"], 0.0)


def added(proof: Proof, **differences: float) -> Proof:
    proof.add(NUMBERS, NUMBERS | {"loss": 2.5}, NONE | differences, ["a.jsonl:1"])
    return proof


def test_differences_are_parts_of_a_scale():
    assert relative(3.0, 2.0, 4.0) == 0.25
    assert relative(0.0, 0.0, 0.0) == 0.0
    assert relative(1e-9, 0.0, 0.0) == relative(math.nan, 1.0, 1.0) == math.inf


def test_equal_steps_agree_in_these_words():
    proof = added(added(Proof("float32", rendered=2), loss=1e-7), grad_norm=3e-7)
    assert proof.agrees
    assert proof.sentence == "training arithmetic agrees to 3e-07 over 2 steps (float32, 2 rows rendered again)"
    assert proof.as_dict()["per_step"][1]["rows"] == ["a.jsonl:1"]


def test_the_first_parting_counts_and_nan_is_one():
    proof = added(added(added(Proof("float32")), loss=math.nan), grad_norm=1.0)
    assert not proof.agrees
    words = "loss 2 in the training, 2.5 in the referee (differ by nan, tolerance 0.0002)"
    assert proof.sentence == f"training and referee diverge at step 2: {words}"
