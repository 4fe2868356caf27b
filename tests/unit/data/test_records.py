"""Turns as messages for a chat template; examples from conversations."""

from llmft.data.records import Example, Turn

CALL = '{"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "{\\"city\\": \\"Oslo\\"}"}}'


def test_a_plain_turn_has_its_text_and_its_parts():
    assert Turn("user", "Add.", "1 and 2").message() == {
        "role": "user",
        "content": "Add.\n\n1 and 2",
        "instruction": "Add.",
        "input": "1 and 2",
    }


def test_reasoning_calls_and_results_become_the_fields_that_templates_read():
    call = Turn("assistant", "", reasoning="Look.", tool_calls=(CALL,)).message()
    assert call["reasoning_content"] == "Look."
    assert "content" not in call  # apply_chat_template leaves a null content out
    function = {"name": "get_time", "arguments": {"city": "Oslo"}}
    assert call["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    result = Turn("tool", "12:00", name="get_time", tool_call_id="c1").message()
    assert (result["role"], result["content"]) == ("tool", "12:00")
    assert (result["name"], result["tool_call_id"]) == ("get_time", "c1")


def test_a_call_without_the_function_object_is_one():
    call = Turn("assistant", "I look.", tool_calls=('{"name": "t", "arguments": {}}',)).message()
    assert call["content"] == "I look."
    assert call["tool_calls"] == [{"type": "function", "function": {"name": "t", "arguments": {}}}]


def test_the_last_turn_of_a_conversation_is_the_answer():
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello", reasoning="Greet.", tool_calls=(CALL,), weight=2.0))
    example = Example.from_turns(turns, "7", tools=("{}",), weight=0.5)
    assert example.context == turns[:1]
    assert example.reply == turns[1]
    assert (example.answer, example.id, example.tools, example.weight) == ("Hello", "7", ("{}",), 0.5)
