"""Every key of a chat row is used, or refused by its place, or says that the row is not trained."""

import json

import pytest

from llmft.data.academic import Academic
from llmft.data.alpaca import Alpaca
from llmft.data.messages import turns_of
from llmft.data.records import Example, NotTrainedError, RowError, Turn
from llmft.data.row_fields import chat_example, history_of

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CALL = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"city":  "Bonn", "n": 1e5}'}}
ASKS = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "time", "content": "12:00"}
TOOL = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}


def test_a_conversation_with_a_tool():
    example = chat_example({"messages": [Q, ASKS, RESULT, A], "tools": [TOOL]})
    asking = Turn("assistant", "", tool_calls=(json.dumps(CALL),))
    result = Turn("tool", "12:00", name="time", tool_call_id="c1")
    assert example == Example((Turn("user", "Q"), asking, result), "A", tools=(json.dumps(TOOL),))


def test_a_call_beside_text_at_the_end_is_part_of_the_answer():
    example = chat_example({"messages": [Q, {**ASKS, "content": "I look."}]})
    assert (example.answer, example.tool_calls) == ("I look.", (json.dumps(CALL),))


@pytest.mark.parametrize(
    "arguments",
    ['{"a":1 ,"b" : [1.50, "é\\u00e9"]}', {"b": None, "a": {"deep": [1, 2.5, "é"], "list": []}}, "", {}],
)
def test_arguments_are_those_of_the_file(arguments):
    call = {"name": "f", "arguments": arguments}
    (found,) = chat_example({"messages": [Q, {"role": "assistant", "content": None, "tool_calls": [call]}]}).tool_calls
    assert json.loads(found) == call
    assert list(json.loads(found)["arguments"]) == list(arguments)  # the order of the keys too


SHAPES = [
    ({"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}, (CALL, CALL)),
    ({"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}, (CALL,)),
    ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, ({"name": "f", "arguments": "{}"},)),
    ({"from": "function_call", "value": '{"name": "f", "arguments": {}}'}, ({"name": "f", "arguments": {}},)),
    ({"from": "function_call", "value": '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]'},
     ({"name": "f", "arguments": {}}, {"name": "g", "arguments": {}})),
    ({"role": "tool_call", "content": '{"name": "f", "arguments": {}}'}, ({"name": "f", "arguments": {}},)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "calls"), SHAPES)
def test_shapes_of_calls(message, calls):
    *_, turn = turns_of([Q, message])
    assert [json.loads(call) for call in turn.tool_calls] == list(calls)
    assert turn.content == ""


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], [TOOL["function"]]])
def test_shapes_of_tools(tools):
    assert [json.loads(tool) for tool in chat_example({"messages": [Q, A], "tools": tools}).tools] == [TOOL]


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_no_tools(tools):
    assert chat_example({"messages": [Q, A], "tools": tools}).tools == ()


def test_sharegpt_names_of_roles():
    messages = [
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "I look."},
        {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
        {"from": "observation", "value": ""},
        {"from": "gpt", "value": "A"},
    ]
    assert turns_of(messages) == (
        Turn("user", "Q"),
        Turn("assistant", "I look.", tool_calls=('{"name": "f", "arguments": {}}',)),
        Turn("tool", ""),
        Turn("assistant", "A"),
    )


def test_messages_as_json_text():
    assert turns_of(json.dumps([Q, ASKS, RESULT, A])) == turns_of([Q, ASKS, RESULT, A])
    for text in ("[", "[" * 100_000, "{}", "Q", "[]"):
        with pytest.raises(RowError, match="messages: must be a list of turns"):
            turns_of(text)


def test_tool_turns_may_follow_a_text_and_each_other():
    inline = {"role": "assistant", "content": "<tool_call>{}</tool_call>"}
    roles = [turn.role for turn in turns_of([Q, inline, RESULT, RESULT, ASKS, RESULT, A, Q, A])]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "user", "assistant"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning(key):
    assert turns_of([Q, {**A, key: "because"}])[-1] == Turn("assistant", "A", reasoning="because")
    assert turns_of([Q, {**A, key: ""}])[-1] == turns_of([Q, {**A, key: None}])[-1] == Turn("assistant", "A")


def test_content_in_parts():
    parts = [
        {"type": "thinking", "thinking": "because"},
        {"type": "text", "text": "A"},
        {"type": "text", "value": "B"},
        "C",
    ]
    assert turns_of([Q, {"role": "assistant", "content": parts}])[-1] == Turn("assistant", "ABC", reasoning="because")


@pytest.mark.parametrize(
    ("keys", "weight"),
    [({"weight": 0}, 0), ({"weight": 2.5}, 2.5), ({"train": False}, 0), ({"loss": True}, 1), ({"weight": 3, "train": 1}, 3), ({"weight": None}, 1)],
)  # fmt: skip
def test_weights_of_a_turn(keys, weight):
    example = chat_example({"messages": [Q, {**A, **keys}, Q, A]})
    assert (example.context[1].weight, example.answer_weight, example.weight) == (weight, 1, 1)
    assert chat_example({"messages": [Q, {**A, **keys}]}).answer_weight == weight


def test_system_and_developer():
    assert chat_example({"messages": [Q, A], "system": "S"}).context[0] == Turn("system", "S")
    assert chat_example({"messages": [{"role": "developer", "content": "D"}, Q, A]}).context[0] == Turn(
        "developer", "D"
    )
    assert len(chat_example({"messages": [{"role": "system", "content": "S"}, Q, A], "system": "S"}).context) == 2
    assert chat_example({"messages": [Q, A], "system": " "}).context == (Turn("user", "Q"),)


def test_alpaca_with_a_history_and_a_system_prompt():
    row = {"instruction": "I", "input": "", "output": "O", "system": "S", "history": [["q", "a"]], "weight": 2}
    context = (Turn("system", "S"), Turn("user", "q"), Turn("assistant", "a"), Turn("user", "I"))
    assert Alpaca.to_example(row) == Example(context, "O", weight=2.0)
    assert Alpaca.to_example({**row, "history": None, "system": None, "weight": None}).context == (Turn("user", "I"),)
    assert history_of({}) == history_of({"history": []}) == ()


@pytest.mark.parametrize(
    ("more", "field", "why"), [({"weight": 0}, "weight", "weight 0"), ({"label": False}, "label", "label false")]
)
def test_rows_that_say_that_they_are_not_trained(more, field, why):
    with pytest.raises(NotTrainedError) as error:
        Academic.to_example({"messages": [Q, A], **more})
    assert (error.value.field, error.value.why) == (field, why)


def test_a_label_of_another_kind_is_not_kto():
    assert Academic.to_example({"messages": [Q, A], "label": 0}) == Academic.to_example(
        {"messages": [Q, A], "label": True}
    )


FAULTS = [
    ([Q, ASKS, A], "messages[2].role: must be tool here"),
    ([Q, ASKS, Q, A], "messages[2].role: must be tool here"),
    ([Q, ASKS, RESULT], "messages[2].role: the last turn must be assistant, got tool"),
    ([Q, RESULT, A], "messages[1].role: must be assistant here"),
    ([RESULT, A], "messages[0].role: must be user here"),
    ([Q, A, A], "messages[2].role: must be user or tool here"),
    ([Q, A, {"role": "system", "content": "S"}, Q, A], "messages[2].role: must be user or tool here"),
    ([{**Q, "tool_calls": [CALL]}, A], "messages[0].tool_calls: only an assistant turn has calls, this one is user"),
    ([{**Q, "reasoning": "r"}, A], "messages[0].reasoning: only an assistant turn has reasoning, this one is user"),
    ([{**Q, "weight": 2}, A], "messages[0].weight: only an assistant turn is trained, this one is user"),
    ([Q, {**A, "reasoning": "r", "thinking": "s"}], 'messages[1].thinking: differs from reasoning: "s"'),
    ([Q, {**A, "reasoning": 1}], "messages[1].reasoning: must be text, got 1"),
    ([Q, {**A, "weight": -1}], "messages[1].weight: must be a number of at least 0, got -1"),
    ([Q, {**A, "weight": "1"}], 'messages[1].weight: must be a number of at least 0, got "1"'),
    ([Q, {**A, "weight": True}], "messages[1].weight: must be a number of at least 0, got true"),
    ([Q, {**A, "train": "no"}], 'messages[1].train: must be true or false, got "no"'),
    ([Q, {**ASKS, "tool_calls": "x"}], "messages[1].tool_calls: must be JSON"),
    ([Q, {**ASKS, "tool_calls": [1]}], "messages[1].tool_calls[0]: must be an object, got 1"),
    ([Q, {**ASKS, "tool_calls": [{"function": {"arguments": "{}"}}]}], "messages[1].tool_calls[0].function.name: is missing"),
    ([Q, {**ASKS, "tool_calls": [{"name": "f"}]}], "messages[1].tool_calls[0].arguments: is missing"),
    ([Q, {**ASKS, "tool_calls": [{"name": "f", "arguments": "x"}]}], "messages[1].tool_calls[0].arguments: must be JSON"),
    ([Q, {**ASKS, "tool_calls": [{"name": "f", "arguments": "[1]"}]}], "messages[1].tool_calls[0].arguments: must be JSON of an object"),
    ([Q, {**ASKS, "tool_calls": [{"name": "f", "arguments": {"x": "\ud800"}}]}], "messages[1].tool_calls[0]: holds half of a surrogate pair"),
    ([Q, {"from": "function_call", "value": "now"}], "messages[1].value: must be JSON"),
    ([Q, {**A, "tool_calls": []}, {"from": "function_call", "value": '{"name": "f", "arguments": {}}', "weight": 0}], "messages[2].weight: the calls after"),
    ([Q, {"role": "assistant", "content": [{"type": "image_url"}]}], "messages[1].content[0]: must be a part of type text"),
    ([{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}, A], "messages[0].content[0]: must be a part of type text"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "message"), FAULTS)
def test_faults_name_their_place(messages, message):
    with pytest.raises(RowError) as error:
        turns_of(messages)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"system": "T", "messages": [{"role": "system", "content": "S"}, Q, A]}, "system: differs from the system turn messages[0]"),
        ({"system": 1}, "system: must be text, got 1"),
        ({"tools": 1}, "tools: must be an object or a list of objects, got 1"),
        ({"tools": [{"description": "x"}]}, "tools[0].name: is missing"),
        ({"tools": "no JSON"}, "tools: must be JSON"),
        ({"weight": "2"}, 'weight: must be a number of at least 0, got "2"'),
        ({"weight": float("inf")}, "weight: must be a number of at least 0"),
    ],
)  # fmt: skip
def test_faults_of_a_row(more, message):
    with pytest.raises(RowError) as error:
        chat_example({"messages": [Q, A], **more})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("history", "message"),
    [("x", "history: must be a list of [question, answer] pairs"), ([["q"]], "history[0]: must be a [question, answer] pair"),
     ([["q", ""]], "history[0]: must not be blank"), ([["q", "a"], ["q", None]], "history[1]: must be text, got null")],
)  # fmt: skip
def test_faults_of_a_history(history, message):
    with pytest.raises(RowError) as error:
        history_of({"history": history})
    assert message in str(error.value)
