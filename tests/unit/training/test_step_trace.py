"""In which quantities the first steps of two trainings differ, and how that is told."""

import math

import pytest

from llmft.referee.referee import TrainedStep
from llmft.referee.rows import TrainedRow
from llmft.training.key_effects import Effect, KeyEffects
from llmft.training.step_trace import Change, Trace, changes, relative_difference


def step(rows, loss=1.0, grad_norm=2.0, lr=0.1):
    """A step of one micro-batch; rows are ``place: ids``."""
    window = [[TrainedRow(place, ids, ids) for place, ids in rows.items()]]
    return TrainedStep(0, window, False, {"loss": loss, "grad_norm": grad_norm, "lr": lr})


A, B = {"f:1": [5, 6], "f:2": [7]}, {"f:3": [8, 9]}


def test_equal_trainings_differ_in_nothing():
    assert changes(Trace([step(A), step(B)], [[1]]), Trace([step(A), step(B)], [[1]])) == {}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([step(A), step(B, loss=1.25)], {"loss": Change(2, 0.2)}),
        ([step(A, grad_norm=1.0), step(B, grad_norm=2.0)], {"gradient norm": Change(1, 0.5)}),
        ([step(A, lr=0.0), step(B)], {"learning rate": Change(1, 1.0)}),
        ([step(B), step(A)], {"batches": Change(1)}),  # the same examples in another order
        ([step(A), step({"f:3": [8]})], {"ids": Change()}),  # cut, in the same batch
        ([step(A)], {"number of steps": Change()}),
    ],
)
def test_each_quantity_is_told_apart(other, expected):
    assert changes(Trace([step(A), step(B)]), Trace(other)) == expected


def test_rows_of_one_line_are_told_apart_by_their_ids():
    one, two = ({"f:1": ids} for ids in ([5], [6]))
    assert changes(Trace([step(one), step(two)]), Trace([step(two), step(one)])) == {"batches": Change(1)}


def test_generated_ids_are_compared():
    assert changes(Trace([step(A)], [[1, 2]]), Trace([step(A)], [[1]])) == {"generated ids": Change()}


def test_other_files_have_other_ids():
    assert changes(Trace([step(A)]), Trace([step({"g:1": [5, 6]})])).keys() == {"ids", "batches"}


def test_what_two_equal_trainings_differ_in_is_no_effect():
    noise = {"loss": Change(1, 0.001)}
    reference = Trace([step(A, loss=1.0)])
    assert changes(reference, Trace([step(A, loss=1.005)]), noise) == {}
    assert changes(reference, Trace([step(A, loss=1.05)]), noise).keys() == {"loss"}


def test_a_relative_difference():
    assert relative_difference(2.0, 1.0) == 0.5
    assert relative_difference(0.0, 0.0) == relative_difference(math.nan, math.nan) == 0.0
    assert relative_difference(1.0, math.nan) == relative_difference(1.0, math.inf) == math.inf


def test_effects_in_words():
    effects = {
        "optim.lr": Effect("changes", {"learning rate": Change(2, 0.9), "generated ids": Change()}),
        "data.num_workers": Effect("none", {}),
        "seed": Effect("default", {}),
        "evaluate.rows": Effect("outside", {}),
        "data.path": Effect("needed", {}, "there is none"),
    }
    found = KeyEffects(4, effects, {"loss": Change(1, 1e-7)})
    assert [effect.sentence(4) for effect in effects.values()] == [
        "changes learning rate (from step 2, up to 0.9), generated ids",
        "no effect in the first 4 steps",
        "is the default",
        "not part of training",
        "cannot be left out: there is none",
    ]
    assert found.sentence == "1 of 5 keys have no effect in the first 4 steps: data.num_workers"
    assert found.as_dict()["keys"]["optim.lr"]["changes"]["learning rate"] == {"step": 2, "difference": 0.9}
    assert found.notes() == [
        "two equal trainings differ in loss by up to 1e-07; less than 10 times that is not counted"
    ]
