"""Which generation settings a runtime other than PyTorch takes."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmft.generation.runtime_generator import RuntimeGenerator
from llmft.utils.errors import UserError

GREEDY = {"max_new_tokens": 8, "num_beams": 1, "do_sample": False, "samples": 1, "batch_size": 8, "batch_tokens": None, "seed": 1}  # fmt: skip
RUNTIME: Any = SimpleNamespace(name="ONNX Runtime 1.32.0", generate=lambda prompts, limit: [[limit]] * len(prompts))
RUNTIME.stop_ids, RUNTIME.decode = frozenset(), str


def test_greedy_settings_are_taken_and_those_of_sampling_have_no_effect():
    generator = RuntimeGenerator(RUNTIME, {**GREEDY, "temperature": 0.7, "top_p": 0.9, "top_k": None})
    assert [answer.text for answer in generator.with_settings(seed=2).continued([[1], [2]])] == ["[8]", "[8]"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("do_sample", True, "true"), ("num_beams", 4, "4"), ("samples", 3, "3"), ("top_k", 5, "5")],
)
def test_what_is_not_greedy_is_refused_before_any_answer(name, value, said):
    with pytest.raises(UserError) as error:
        RuntimeGenerator(RUNTIME, {**GREEDY, name: value})
    assert str(error.value) == f"generation.{name}={said}: ONNX Runtime 1.32.0 decodes greedily; add generation=greedy"
