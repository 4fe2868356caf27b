"""A green verdict is one to sign: enough test rows, none of them in train, and no score picked from many."""

import numpy as np

from llmft.config.schema.evaluation import Evaluate
from llmft.evaluation.evaluator import score_predictions
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.metric import Metric
from llmft.metrics.predictions import Prediction
from llmft.metrics.verdict.verdict import verdict_of

LOSS = builtin_metrics()[0]


def rows(number, better=1.0, leaked=0):
    """Predictions whose loss falls by ``better`` nats per token, give or take 2; ``leaked`` ones fall by 10."""
    falls = [10.0] * leaked + [better + 2.0 * (-1) ** n for n in range(number - leaked)]
    return [
        Prediction(str(n), "P", "R", "A", "B", supervised=1, nats=20.0 - fall, base_nats=20.0, in_train=n < leaked)
        for n, fall in enumerate(falls)
    ]


def verdict(predictions, split="test", metrics=(LOSS,)):
    settings = Evaluate.model_construct(resamples=1000)
    found = score_predictions(predictions, metrics, settings, seed=0, objective="val/loss")
    return verdict_of({"split": split, "rows": len(predictions), "of": len(predictions), **found}, {})


def test_a_verdict_is_green_on_enough_test_rows_that_are_not_in_train():
    found = verdict(rows(100))
    assert (found.color, found.reasons) == ("green", ())
    assert "on 100 test rows: loss 19.00 against 20.00, difference -1.000 (95 % interval -1." in found.headline
    assert "about 40 rows" in found.details[0] or "about 30 rows" in found.details[0]  # (2.8 x 2 / 1)^2 = 31.4
    assert verdict(rows(100, better=0.0)).color == "amber"
    assert verdict(rows(100, better=-1.0)).color == "red"
    assert verdict(rows(100), split="val").color == verdict(rows(100), split="train").color == "amber"
    assert verdict(rows(28)).color == "amber"


def test_an_improvement_that_comes_from_leaks_does_not_survive_the_clean_rows():
    found = verdict(rows(100, better=0.0, leaked=50))
    assert found.headline.startswith("Better than its base on 100 test rows")
    assert found.color == "amber"
    assert "no significant improvement on the other rows alone" in found.reasons
    assert "On the 50 rows whose prompt is not in train: difference 0 " in found.details[0]
    found = verdict(rows(100, leaked=20))
    assert found.reasons == ("20 of 100 prompts are in train too (exactly or nearly)",)


def test_of_twenty_scores_that_do_not_differ_none_is_said_to_differ():
    random = np.random.default_rng(8)
    predictions = [Prediction(str(n), "P", "R", f"{n}", f"base {n}", supervised=1, nats=1.0, base_nats=2.0, in_train=False) for n in range(60)]  # fmt: skip
    noise = {text: random.normal(size=20) for p in predictions for text in (p.answer, str(p.base_answer))}
    scores = [
        Metric(f"score{i}", 2, lambda answered, i=i: (noise[answered.answer][i], 1.0), lambda s: s[0] / s[1], "", "")
        for i in range(20)
    ]
    found = score_predictions(predictions, (LOSS, *scores), Evaluate.model_construct(resamples=1000), 0)
    alone = [entry for entry in found["scores"].values() if entry["verdict"] in ("better", "worse")]
    assert len(alone) > 2  # the loss, and what chance gives
    said = verdict_of({"split": "test", "rows": 60, "of": 60, **found}, {})
    assert said.details[0].endswith(
        "Of 20 other scores: none significantly different (corrected for their number, Holm)."
    )
    assert said.color == "green"
