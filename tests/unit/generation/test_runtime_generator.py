"""Which generation settings a runtime other than PyTorch takes."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmft.generation.runtime_generator import RuntimeGenerator
from llmft.generation.stream import Answer
from llmft.utils.errors import UserError

GREEDY = {"max_new_tokens": 8, "num_beams": 1, "do_sample": False, "samples": 1, "batch_size": 8, "batch_tokens": None, "seed": 1}  # fmt: skip
RUNTIME: Any = SimpleNamespace(name="ONNX Runtime 1.32.0", generate=lambda prompts, limit: [[limit]] * len(prompts))
RUNTIME.stop_ids, RUNTIME.decode = frozenset(), str


def test_greedy_settings_are_taken_and_those_of_sampling_have_no_effect():
    generator = RuntimeGenerator(RUNTIME, {**GREEDY, "temperature": 0.7, "top_p": 0.9, "top_k": None})
    assert [answer.text for answer in generator.with_settings(seed=2).continued([[1], [2]])] == ["[8]", "[8]"]


def test_batches_of_similar_length_are_reported_and_known_answers_are_not_generated_again():
    generator, seen = RuntimeGenerator(RUNTIME, {**GREEDY, "batch_size": 2}), []
    prompts, known = [[1, 2, 3], [1], [1, 2], [1]], {1: Answer("kept", ended=True, tokens=1), 3: Answer("", True, 0)}
    answers = generator.continued(prompts, known=known, finished=lambda rows, found: seen.append((rows, len(found))))
    assert [answer.text for answer in answers] == ["[8]", "kept", "[8]", ""]
    assert seen == [([2, 0], 2)]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("do_sample", True, "true"), ("num_beams", 4, "4"), ("samples", 3, "3"), ("top_k", 5, "5")],
)
def test_what_is_not_greedy_is_refused_before_any_answer(name, value, said):
    with pytest.raises(UserError) as error:
        RuntimeGenerator(RUNTIME, {**GREEDY, name: value})
    assert str(error.value) == f"generation.{name}={said}: ONNX Runtime 1.32.0 decodes greedily; add generation=greedy"
