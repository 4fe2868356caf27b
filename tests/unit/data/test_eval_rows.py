"""The reference of an evaluation is what a perfect answer decodes to."""

from llmft.config.groups import prompt_config
from llmft.data.eval_rows import EvalRows
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import codec_for
from tests.support.chat_templates import tokenizer_of

CALL = '{"name": "f", "arguments": {"x": 1}}'


def test_references_hold_calls_and_reasoning_as_the_template_writes_them():
    codec = codec_for("causal", tokenizer_of("qwen3"), prompt_config("chat"), None, "answer", "last")[0]
    context = (Turn("user", "Q"),)
    examples = [
        Example(context, "A."),
        Example(context, "A.", reasoning="B"),
        Example(context, "I look.", tool_calls=(CALL,)),
    ]
    encoded = [Truncation(999, 999, "error").fit(example, codec).row for example in examples]
    plain, reasoned, called = EvalRows("test", 3, examples, encoded, [False] * 3).references(codec)
    assert plain == "A."
    assert reasoned == "<think>\nB\n</think>\n\nA."
    assert called.endswith('I look.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>')
