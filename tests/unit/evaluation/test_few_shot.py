"""Few-shot prompts and their scores."""

from llmft.data.records import Example, Turn
from llmft.evaluation.few_shot import add_few_shot, few_shot_context, few_shot_result
from llmft.generation.stream import Answer
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.predictions import Prediction


def example(question, answer, system=None, place=""):
    return Example((Turn("user", question),), answer, place=place).with_system(system)


def test_the_examples_are_earlier_turns_under_the_rows_own_system_prompt():
    shown = [example("1?", "one", "S"), example("2?", "two", "other")]
    assert few_shot_context(example("3?", "three", "S"), shown) == (
        Turn("system", "S"),
        Turn("user", "1?"),
        Turn("assistant", "one"),
        Turn("user", "2?"),
        Turn("assistant", "two"),
        Turn("user", "3?"),
    )
    assert few_shot_context(example("3?", "three"), shown[:1])[0] == Turn("user", "1?")


def test_scores_by_hand():
    rows = [Prediction(str(i), "", "yes", answer, ended=True) for i, answer in enumerate(("yes", "yes", "no", "yes"))]
    answers = [Answer(text, ended=True, tokens=1) for text in ("yes", "no", "no", "no")]
    add_few_shot(rows, answers)
    assert [row.few_shot_answer for row in rows] == ["yes", "no", "no", "no"]
    found = few_shot_result(rows, builtin_metrics(), [example("1?", "one", place="f:1")], resamples=100, seed=0)
    assert found["examples"] == ["f:1"]
    assert "loss" not in found["scores"]
    match = found["scores"]["exact_match"]
    assert (match["tuned"], match["base"], match["difference"]) == (75, 25, 50)
