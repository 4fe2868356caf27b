"""What a chat template does with system prompts, reasoning and tools, found by rendering small conversations."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llmft.data.records import Turn
from llmft.utils.errors import UserError

USER = {"role": "user", "content": "Hi", "instruction": "Hi", "input": ""}
PROBE = "Zq probe"
NOTHING = re.compile(r"\b(None|null)\b")  # a missing content, written as text
EMPTY = re.compile(r"<(\w+)>\s*</\1>\s*Yes")
TAG = re.compile(r"<(\w+)>\s*$")
TOOL = {
    "type": "function",
    "function": {
        "name": "zq_tool",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"zq_one": {"type": "string"}}, "required": []},
    },
}


def render(
    source: str, messages: list[dict[str, Any]], variables: dict[str, str], tools: Any = None, *, generate: bool = False
) -> str:
    """Render messages to text.

    Raises:
        UserError: The template fails on them.
    """
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template(
            conversations=[messages],
            chat_template=source,
            add_generation_prompt=generate,
            tools=tools,
            **variables,  # pyright: ignore[reportArgumentType]
        )
    except (TemplateError, TypeError, AttributeError, KeyError, ValueError) as error:  # a template is code
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(f"prompt template: {error} (turns: {roles}); choose another with prompt=NAME") from None
    return rendered[0]


def call(arguments: dict[str, Any], name: str = "zq_tool") -> str:
    """The JSON text of a call for a probe."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return json.dumps({"id": "zqcallid1", "type": "function", "function": function})


@dataclass(frozen=True)
class Traits:
    """What a template does; every property is found when it is first needed.

    Attributes:
        source: The template.
        variables: As of ``PromptTemplate``.
        needs_tools: Whether it is only for conversations with tools, and may fail without any.
    """

    source: str
    variables: dict[str, str] = field(default_factory=dict)
    needs_tools: bool = False

    def text(self, messages: list[dict[str, Any]], tools: Any = None, *, generate: bool = False) -> str:
        """A probe as text.

        Raises:
            UserError: The template refuses it.
        """
        tools = tools or ([TOOL] if self.needs_tools else None)
        return render(self.source, messages, self.variables, tools, generate=generate)

    def shown(self, *messages: dict[str, Any], tools: Any = None) -> str:
        """The messages as text; empty if the template refuses them."""
        try:
            return self.text(list(messages), tools)
        except UserError:
            return ""

    @cached_property
    def system(self) -> bool:
        """Whether the template has a system turn."""
        return PROBE in self.shown({"role": "system", "content": PROBE, "instruction": PROBE, "input": ""}, USER)

    @cached_property
    def own_system(self) -> str:
        """The system prompt that the template writes where a conversation has none; empty if it writes none."""
        before, found, after = self.shown(
            {"role": "system", "content": PROBE, "instruction": PROBE, "input": ""}, USER
        ).partition(PROBE)
        without = self.shown(USER)
        if not (found and without.startswith(before) and after in without[len(before) :]):
            return ""
        return without[len(before) :].rpartition(after)[0]

    @cached_property
    def developer(self) -> bool:
        """Whether the template has a developer turn; if not, it is a system turn."""
        return PROBE in self.shown({"role": "developer", "content": PROBE, "instruction": PROBE, "input": ""}, USER)

    @cached_property
    def tools(self) -> bool:
        """Whether the template writes the schemas of tools."""
        return "zq_one" in self.shown(USER, {"role": "assistant", "content": "Yes"}, tools=[TOOL])

    @cached_property
    def call_form(self) -> tuple[str | None, bool] | None:
        """Content of a turn of calls alone (none or empty), and whether arguments are a text; None if there are no calls."""
        for content, as_text in ((None, False), ("", False), (None, True), ("", True)):
            message = _called(Turn("assistant", "", tool_calls=(call({"zq_one": "zq two"}),)), content, as_text)
            text = self.shown(USER, message, tools=[TOOL])
            written = (
                all(part in text for part in ("zq_tool", "zq two")) and text.count("zq_tool") > self._named_by_tools
            )
            if written and not NOTHING.search(text):
                return content, as_text
        return None

    @cached_property
    def text_arguments(self) -> bool:
        """Whether arguments may be a text too, which the template writes as it is in the place of an object's JSON."""
        if self.call_form is None:
            return False
        content, as_text = self.call_form
        given, usual = '{"zq_one":  "zq two"}', '{"zq_one": "zq two"}'
        turn = Turn(
            "assistant", "", tool_calls=(json.dumps({"id": "zqcallid1", "name": "zq_tool", "arguments": given}),)
        )
        texts = [
            self.shown(USER, _called(turn, content, as_text, verbatim=verbatim), tools=[TOOL])
            for verbatim in (True, False)
        ]
        return given in texts[0] and texts[0].replace(given, usual) == texts[1]

    @cached_property
    def _named_by_tools(self) -> int:
        return self.shown(USER, {"role": "assistant", "content": "Yes"}, tools=[TOOL]).count("zq_tool")

    @cached_property
    def several_calls(self) -> bool:
        """Whether the template writes more than the first call of a turn."""
        calls = call({"zq_one": "zq two"}), call({"zq_one": "zq three"})
        try:
            messages = self.messages([Turn("user", "Hi"), Turn("assistant", "", tool_calls=calls)], checked=False)
        except UserError:
            return False
        return "zq three" in self.shown(*messages, tools=[TOOL])

    @cached_property
    def results(self) -> bool:
        """Whether the template writes the results of tools."""
        turns = [
            Turn("user", "Hi"),
            Turn("assistant", "", tool_calls=(call({"zq_one": "zq two"}),)),
            Turn("tool", "zqresult", name="zq_tool", tool_call_id="zqcallid1"),
            Turn("assistant", "Yes"),
        ]
        try:
            messages = self.messages(turns, checked=False)
        except UserError:
            return False
        return "zqresult" in self.shown(*messages, tools=[TOOL])

    def shows_reasoning(self, *, calls: bool = False) -> bool:
        """Whether the template writes the reasoning of the last turn."""
        return self._shows_reasoning_of_calls if calls else self._shows_reasoning

    @cached_property
    def _shows_reasoning(self) -> bool:
        return PROBE in self._with_reasoning(Turn("assistant", "Yes", reasoning=PROBE))

    @cached_property
    def _shows_reasoning_of_calls(self) -> bool:
        if self.call_form is None:
            return False
        return PROBE in self._with_reasoning(Turn("assistant", "", reasoning=PROBE, tool_calls=(call({"zq_one": 1}),)))

    def _with_reasoning(self, turn: Turn) -> str:
        return self.shown(*self.messages([Turn("user", "Hi"), turn]), tools=[TOOL] if turn.tool_calls else None)

    @cached_property
    def tags(self) -> tuple[str, str] | None:
        """The tags around reasoning, if they are of the form ``<think>`` and ``</think>``."""
        if self._shows_reasoning:
            before, _, after = self._with_reasoning(Turn("assistant", "Yes", reasoning=PROBE)).partition(PROBE)
            match = TAG.search(before)
            if match and after.lstrip().startswith(f"</{match.group(1)}>"):
                return f"<{match.group(1)}>", f"</{match.group(1)}>"
            return None
        if empty := EMPTY.search(self.shown(USER, {"role": "assistant", "content": "Yes"})):  # always without reasoning
            return f"<{empty.group(1)}>", f"</{empty.group(1)}>"
        typed = f"<think>\n{PROBE}\n</think>\n\nYes"
        text = self.shown(USER, {"role": "assistant", "content": typed})
        return ("<think>", "</think>") if text and PROBE not in text else None  # it cuts typed reasoning off

    def parsed(self, turn: Turn) -> Turn:
        """A turn whose reasoning is its own field, if tags at the head of its text mark it."""
        content = turn.content.lstrip()
        if turn.reasoning is not None or not self.tags or not content.startswith(self.tags[0]):
            return turn
        start, end = self.tags
        reasoning, found, rest = content.removeprefix(start).partition(end)
        if not found:
            return turn
        return replace(turn, reasoning=reasoning.strip("\n"), content=rest.lstrip("\n"))

    def messages(self, turns: Sequence[Turn], *, checked: bool = True) -> list[dict[str, Any]]:
        """The messages that the template gets.

        Raises:
            UserError: It has no place for calls, or for the results of tools.
        """
        turns = [replace(t, role="system") if t.role == "developer" and not self.developer else t for t in turns]
        if len(turns) > 1 and turns[0].role == "system" and not self.system:
            system, first, *rest = turns
            turns = [replace(first, content=f"{system.content}\n\n{first.content}"), *rest]
        return [self._message(turn, checked=checked) for turn in turns]

    def _message(self, turn: Turn, *, checked: bool) -> dict[str, Any]:
        if checked and turn.role == "tool" and not self.results:
            raise UserError("prompt template: has no place for the result of a tool (role tool); choose another prompt")
        if not turn.tool_calls:
            return turn.message()
        if self.call_form is None:
            raise UserError("prompt template: has no place for tool_calls; choose another prompt")
        if len(turn.tool_calls) > 1 and checked and not self.several_calls:
            raise UserError("prompt template: writes only one tool call per turn, and a turn has several")
        return _called(turn, *self.call_form, verbatim=self.text_arguments)


def _called(turn: Turn, content: str | None, as_text: bool, *, verbatim: bool = False) -> dict[str, Any]:
    """The message of a turn with calls in the form that a template takes.

    Args:
        turn: An assistant turn with calls.
        content: What stands for a missing text.
        as_text: Whether all arguments are a text; one of the data stays as it is.
        verbatim: Whether arguments that are a text in the data stay one.
    """
    message = turn.message()
    if not message.get("content") and content is not None:
        message["content"] = content
    for one, given in zip(message["tool_calls"], map(json.loads, turn.tool_calls), strict=True):
        arguments = given.get("function", given).get("arguments", {})
        if isinstance(arguments, str) and arguments.strip() and (as_text or verbatim):
            one["function"]["arguments"] = arguments
        elif as_text:
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"], ensure_ascii=False)
    return message
