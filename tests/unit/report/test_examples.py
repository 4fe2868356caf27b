"""Which rows a report shows, and where."""

from jinja2 import Environment, PackageLoader

from llmft.report.examples import page_rows


def row(number, chrf, **more):
    return {
        "place": f"f:{number}",
        "question": f"Q{number}",
        "reference": "r",
        "answer": "a",
        "scores": {"chrf": chrf},
    } | more


def test_an_empty_answer_is_shown_as_such():
    environment = Environment(loader=PackageLoader("llmft.report"), autoescape=True)
    answer = {"cut": True, "scores": "", "words": "0 words"}
    side = "{% import 'run/macros.html' as m %}{{ m.side('Tuned', answer) }}"
    shown = [
        environment.from_string(side).render(answer=answer | {"pieces": pieces})
        for pieces in ([(" ", False), ("\n", True)], [("yes", True)], [])
    ]
    assert ["(empty)" in text for text in shown] == [True, False, True]


def test_each_row_is_shown_once_with_its_rank_and_its_samples():
    predictions = [row(0, 50.0), row(1, 90.0), row(2, 10.0), row(3, 95.0), row(4, 5.0), row(5, 40.0)]
    samples = [
        {"place": f"f:{n}", "question": f"Q{n}", "step": s, "answer": f"{n} at {s}"} for s in (0, 9) for n in (1, 3, 8)
    ]
    page = page_rows(predictions, samples, 2, 2)
    assert [(r["place"], r["rank"]) for r in page["examples"]] == [("f:0", None), ("f:1", "best by chrF")]
    assert [(r["place"], r["rank"]) for r in page["extremes"]] == [
        ("f:3", "best by chrF"), ("f:4", "worst by chrF"), ("f:2", "worst by chrF")]  # fmt: skip
    assert page["ranked_above"] == 1
    assert page["examples"][1]["samples"]["answers"] == [(0, "1 at 0"), (9, "1 at 9")]
    assert page["extremes"][0]["samples"]["answers"] == [(0, "3 at 0"), (9, "3 at 9")]
    assert [s["question"] for s in page["samples"]] == ["Q8"]


def test_words_are_counted_against_the_reference_not_against_the_other_answer():
    shown = page_rows([row(0, 1.0, reference="two years", answer="one year", base_answer="one year now")], [], 1, 0)[
        "examples"
    ][0]
    assert shown["tuned"]["pieces"] == [("one year", True)]  # as the base says it: wrong all the same
    assert (shown["tuned"]["words"], shown["base"]["words"]) == ("2 missing, 2 extra words", "2 missing, 3 extra words")
    assert page_rows([row(0, 1.0, answer="r")], [], 1, 0)["examples"][0]["tuned"]["words"] == "same words"
    assert page_rows([row(0, 1.0)], [], 1, 0)["examples"][0]["base"] is None


def test_a_row_that_is_in_train_too_says_so():
    assert [r["in_train"] for r in page_rows([row(0, 1.0, in_train=True), row(1, 1.0)], [], 2, 0)["examples"]] == [
        True,
        False,
    ]
