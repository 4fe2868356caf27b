"""The prompts that a generator answers hold the tools of their examples, as in training."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmft.data.records import Turn
from llmft.generation.generator import Generator
from llmft.generation.questions import to_question

CONTEXTS = [(Turn("user", "Q1"),), (Turn("user", "Q2"),)]


@pytest.mark.parametrize(("tools", "expected"), [((), [(), ()]), ([("T",), ()], [("T",), ()])])
def test_prompts_have_the_tools_of_their_examples(tools, expected):
    generator: Any = Generator.__new__(Generator)
    template = SimpleNamespace(render=lambda context, tools: (context, tools))
    generator.codec = SimpleNamespace(template=template, prompt_ids=lambda prompt: prompt)
    generator.continued = lambda prompts: prompts
    assert generator.answers(CONTEXTS, tools) == list(zip(CONTEXTS, expected, strict=True))


def test_a_question_in_the_middle_of_a_tool_conversation():
    call = {"name": "f", "arguments": {}}
    messages = [
        {"from": "human", "value": "Q"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "R"},
    ]
    for reference in ([], [{"from": "gpt", "value": "A"}], [{"role": "assistant", "tool_calls": [call]}]):
        question = to_question({"messages": [*messages, *reference], "tools": [{"name": "f"}]}, "f:3")
        assert [turn.role for turn in question.context] == ["user", "assistant", "tool"]
        assert question.tools == ('{"type": "function", "function": {"name": "f"}}',)
