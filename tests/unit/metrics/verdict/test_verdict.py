"""Headline, color and reservations of a verdict."""

from llmft.metrics.verdict.verdict import Verdict, stored_verdict, verdict_of

COUNTS = {"rows": 500, "kept": 490, "dropped": {"too long": 10}}
LOSS = {
    "better": "lower", "base": 2.5, "tuned": 1.25, "tuned_interval": [1.125, 1.375], "difference": -1.25,
    "difference_interval": [-1.5, -1.0], "verdict": "better",
}  # fmt: skip
NOTHING_SEEN = LOSS | {"difference": -0.125, "difference_interval": [-0.5, 0.25], "verdict": "no difference seen"}
WORSE = LOSS | {"base": 0.5, "difference": 0.75, "difference_interval": [0.5, 1.0], "verdict": "worse"}


def evaluation(entry=LOSS, **values):
    return {"split": "test", "rows": 400, "of": 400, "scores": {"loss": entry}, "primary": {"score": "loss"}} | values


def test_an_improvement_without_reservation_is_green():
    found = verdict_of(evaluation(), {"data": COUNTS})
    assert found.headline == (
        "Better than its base on 400 test rows: loss 1.250 against 2.500, difference -1.250 (95 % interval -1.500 to -1.000)."
    )
    assert (found.color, found.reasons) == ("green", ())


def test_the_color_and_the_headline():
    def said(entry=LOSS, record=None, **values):
        found = verdict_of(evaluation(entry, **values), record or {})
        assert len(found.headline.split()) <= 25
        return found.color, found.headline.partition(":")[0], found.reasons

    validation = "no test split: these are validation rows, which selected the checkpoint"
    assert said(split="val", rows=32) == ("amber", "Better than its base on 32 of 400 validation rows", (validation,))
    assert said(split="train")[2] == ("no test split: these are training rows, which the model was trained on",)
    assert said(rows=29, of=29)[::2] == ("amber", ("29 rows, fewer than 30",))
    assert said(rows=30, of=30)[::2] == ("green", ())
    assert said(WORSE) == ("red", "Worse than its base on 400 test rows", ("significantly worse",))
    nothing = "No significant difference from its base on 1,000 of 4,000 validation rows"
    assert said(NOTHING_SEEN, split="val", rows=1000, of=4000)[1] == nothing
    assert said(NOTHING_SEEN)[::2] == ("amber", ("no significant improvement",))
    counts = {"data": COUNTS | {"kept": 480}}
    assert said(record=counts)[::2] == ("amber", ("row counts do not add up: 500 read, 480 kept, 10 dropped",))
    assert said(record=counts | {"stream": {}})[0] == "green"
    forgot = {"flagged": True, "sentence": "what it forgot: French"}
    assert said(retention=forgot)[::2] == ("amber", ("it forgot (retention)",))
    assert said(NOTHING_SEEN, retention=forgot)[0] == "red"
    assert said(record={"prove": {"agrees": False}})[::2] == ("amber", ("the referee computes another training",))


def test_what_cannot_be_compared():
    alone = {name: LOSS[name] for name in ("better", "tuned", "tuned_interval")}
    found = verdict_of(evaluation(alone), {})
    assert found.headline == "Not compared with its base: loss 1.250 on 400 test rows (95 % interval 1.125 to 1.375)."
    assert (found.color, found.reasons) == ("amber", ("the base model was not evaluated",))
    few = LOSS | {
        "difference_interval": None,
        "verdict": None,
        "reason": "4 rows: too few for an interval (6 at least)",
    }
    found = verdict_of(evaluation(few, rows=4, of=4), {})
    assert (
        found.headline == "Too few rows to tell: loss 1.250 against 2.500 of its base on 4 test rows, without interval."
    )
    broken = LOSS | {"tuned": None, "difference": None, "verdict": None, "reason": "tuned: it is NaN or infinite in 3 of 400 rows"}  # fmt: skip
    found = verdict_of(evaluation(broken), {})
    assert found.headline == "No verdict on 400 test rows: loss is undefined (- against 2.500 of its base)."
    assert (found.color, found.reasons) == ("amber", ("tuned: it is NaN or infinite in 3 of 400 rows",))
    found = verdict_of(None, {"metrics": {"before": {"val/loss": 2.0}, "after": {"val/loss": 1.5}}})
    assert found.headline == "Not evaluated: no rows were scored (validation loss 1.500, 2.000 before training)."
    assert found.color == "amber"


def test_the_recorded_verdict_is_the_one_that_is_shown():
    recorded = Verdict("green", "Better.", ("one", "two"), ())
    assert stored_verdict(evaluation(WORSE), {"verdict": recorded.as_dict()}) == recorded
    assert stored_verdict(evaluation(WORSE), {}).color == "red"
    assert stored_verdict(evaluation(WORSE), {"verdict": {"color": "blue"}}).color == "red"
