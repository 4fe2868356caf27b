"""Headline, color and reservations of a verdict."""

from llmft.metrics.verdict.reservations import count_faults
from llmft.metrics.verdict.verdict import Verdict, stored_verdict, verdict_of

COUNTS = {"rows": 500, "kept": 490, "dropped": {"too long": 10}}
LOSS = {
    "better": "lower", "base": 2.5, "tuned": 1.25, "tuned_interval": [1.125, 1.375], "difference": -1.25,
    "difference_interval": [-1.5, -1.0], "verdict": "better",
}  # fmt: skip
NOTHING_SEEN = LOSS | {"difference": -0.125, "difference_interval": [-0.5, 0.25], "verdict": "no difference seen"}
WORSE = LOSS | {"base": 0.5, "difference": 0.75, "difference_interval": [0.5, 1.0], "verdict": "worse"}


def evaluation(entry=LOSS, **values):
    clean = {"rows": 400, "in_train": 0, "unknown": 0, "scores": None}
    found = {
        "split": "test",
        "rows": 400,
        "of": 400,
        "scores": {"loss": entry},
        "primary": {"score": "loss"},
        "clean": clean,
    }
    return found | values


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


def test_the_few_shot_base_is_in_the_details():
    entry = LOSS | {"base": 2.0, "difference": -0.75, "difference_interval": [-1.0, -0.5]}
    few_shot = {"examples": ["f:1", "f:2"], "scores": {"loss": entry}}
    found = verdict_of(evaluation(few_shot=few_shot), {})
    assert found.details[0].startswith(
        "With 2 training examples in its prompt (few-shot), the base has loss 2.000: "
        "difference -0.750 (95 % interval -1.000 to -0.500)."
    )


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


CHRF = {"better": "higher", "base": 40.0, "tuned": 30.0, "difference": -10.0, "difference_interval": [-15.0, -5.0], "verdict": "worse", "p": 0.001}  # fmt: skip
F1 = CHRF | {"tuned": 50.0, "difference": 10.0, "difference_interval": [5.0, 15.0], "verdict": "better", "p": 0.02}
PERPLEXITY = LOSS | {"p": 0.001}


def test_other_scores_are_corrected_for_their_number():
    scores = {"loss": LOSS | {"p": 0.001}, "perplexity": PERPLEXITY, "chrf": CHRF, "words": CHRF | {"better": ""}}
    found = verdict_of(evaluation(scores=scores), {})
    assert (found.color, found.reasons) == ("amber", ("significantly worse on chrf",))
    assert found.details == ("Of 1 other score: chrf worse (corrected for their number, Holm).",)
    # 0.02 x 3 = 0.06
    found = verdict_of(evaluation(scores={"loss": LOSS, "f1": F1, "bleu": F1, "rouge1": F1 | {"p": 0.5}}), {})
    assert found.color == "green"
    assert found.details == ("Of 3 other scores: none significantly different (corrected for their number, Holm).",)
    # 0.001 x 2 and 0.02
    found = verdict_of(evaluation(scores={"loss": LOSS, "f1": F1, "bleu": F1 | {"p": 0.001}}), {})
    assert found.details == ("Of 2 other scores: f1, bleu better (corrected for their number, Holm).",)


def test_leaks_turn_it_amber_and_the_clean_rows_are_told_apart():
    clean = {"rows": 390, "in_train": 10, "unknown": 0, "scores": {"loss": LOSS}}
    found = verdict_of(evaluation(clean=clean), {})
    assert (found.color, found.reasons) == ("amber", ("10 of 400 prompts are in train too (exactly or nearly)",))
    assert found.details == (
        "On the 390 rows whose prompt is not in train: difference -1.250 (95 % interval -1.500 to -1.000).",
    )
    gone = "no significant improvement on the other rows alone"
    found = verdict_of(evaluation(clean=clean | {"scores": {"loss": NOTHING_SEEN}}), {})
    assert found.reasons == ("10 of 400 prompts are in train too (exactly or nearly)", gone)
    found = verdict_of(evaluation(clean={"rows": 0, "in_train": 400, "unknown": 0, "scores": None}), {})
    assert found.reasons == ("400 of 400 prompts are in train too (exactly or nearly)",)
    few = LOSS | {"difference_interval": None, "verdict": None}
    found = verdict_of(evaluation(clean=clean | {"rows": 4, "scores": {"loss": few}}), {})
    assert found.details == (
        "On the 4 rows whose prompt is not in train: difference -1.250 (too few for an interval).",
    )
    unknown = {"rows": 400, "in_train": 0, "unknown": 400, "scores": None}
    said = "not known whether the prompts are in train"
    assert verdict_of(evaluation(clean=unknown, split="given"), {}).reasons == (said,)
    stored = verdict_of(evaluation(clean=unknown, split="stored"), {})
    assert stored.reasons == ("the split of stored answers is not known", said)
    assert "on 400 stored rows" in stored.headline
    assert len(verdict_of(evaluation(clean=clean, split="train"), {}).reasons) == 1


def test_power_retention_and_the_referee_fill_two_lines():
    found = verdict_of(
        evaluation(
            primary={"score": "loss", "rows_for_power": 1200}, retention={"sentence": "what it forgot: nothing"}
        ),
        {"prove": {"agrees": True, "sentence": "training arithmetic agrees to 1e-12 over 20 steps"}},
    )
    assert found.color == "green"
    assert found.details == (
        "A difference of this size takes about 1,200 rows to be seen (power 80 %).",
        "What it forgot: nothing. Training arithmetic agrees to 1e-12 over 20 steps.",
    )
    found = verdict_of(evaluation(primary={"score": "loss", "rows_for_power": 100_000}), {})
    assert found.details == ("A difference of this size takes 100,000 or more rows to be seen (power 80 %).",)


def test_an_improvement_that_another_seed_does_not_show_is_not_green():
    def color(values):
        return verdict_of(evaluation(seeds={"seeds": [1, 2], "scores": {"loss": {"values": values}}}), {}).color

    assert color([1.25, 2.0]) == "green"
    assert color([1.25, 2.5]) == color([1.25, None]) == "amber"


def test_row_counts_that_do_not_add_up():
    def faults(**values):
        whole = {"rows": 100, "kept": 90, "dropped": {"too long": 10}, "unused": 0, "sequences": 90}
        whole |= {"audit": {"train": {"rows": 70}, "test": {"rows": 10}, "val": {"rows": 10}}}
        return list(count_faults(whole | values))

    assert faults() == []
    assert faults(rows=101) == ["row counts do not add up: 101 read, 90 kept, 10 dropped"]
    short = {"train": {"rows": 69}, "test": {"rows": 10}, "val": {"rows": 10}}
    assert faults(audit=short) == ["row counts do not add up: 90 kept, but 69 train + 10 test + 10 val"]
    assert faults(audit=short, unused=1) == []
    # a conversation is several sequences, each of which is a row of its split
    assert faults(sequences=120, audit={"train": {"rows": 120}}) == []
    # a row of val whose prompt is in train was encoded, then dropped
    assert faults(kept=89, dropped={"too long": 10, "in train and val": 1}, audit=short) == []


def test_without_evaluation_the_rest_is_said():
    found = verdict_of(None, {"retention": {"flagged": True, "sentence": "what it forgot: French"}})
    assert found.reasons == ("not evaluated", "it forgot (retention)")
    assert found.details == ("What it forgot: French.",)
    forgot = {"retention": {"flagged": True}}
    assert verdict_of(evaluation(), forgot).color == "amber"
    assert verdict_of(evaluation(NOTHING_SEEN), forgot).color == "red"


def test_scores_of_external_suites_are_among_the_others():
    worse = {"arc": {"acc": CHRF | {"tuned": 0.3, "base": 0.4, "difference": -0.1}}}
    found = verdict_of(evaluation(suites=worse), {})
    assert found.reasons == ("significantly worse on arc: acc",)
    alone = {"better": "lower", "tuned": None, "tuned_interval": None}
    found = verdict_of(evaluation(alone, rows=0, of=0, suites=worse), {})
    assert found.headline == "Not evaluated: no rows were scored."
    assert found.details == ("Of 1 other score: arc: acc worse (corrected for their number, Holm).",)


def test_a_score_whose_interval_includes_0_is_not_called_different():
    touching = CHRF | {"difference_interval": [-15.0, 0.0], "verdict": "no difference seen"}
    assert verdict_of(evaluation(scores={"loss": LOSS, "bleu": touching}), {}).color == "green"


def test_no_headline_is_longer_than_25_words():
    entries = (
        LOSS,
        NOTHING_SEEN,
        WORSE,
        LOSS | {"verdict": None},
        LOSS | {"tuned": None},
        {"better": "lower", "tuned": 1.0},
    )
    for entry in entries:
        for split in ("test", "val", "train", "given", "stored"):
            found = verdict_of(evaluation(entry, split=split, rows=1000, of=4000), {})
            assert len(found.headline.split()) <= 25, found.headline
            assert len(found.details) <= 2
