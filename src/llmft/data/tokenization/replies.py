"""Generated ids -> reasoning, text and tool calls, where they stand as the template writes them."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from llmft.data.records import Turn
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.layout import USER
from llmft.data.tokenization.traits import PROBE, TOOL, call
from llmft.utils.errors import UserError

ARGUMENTS = '{"zq_one": "zq two"}'


class Call(NamedTuple):
    """A tool call; ``arguments`` is the JSON text that was generated."""

    name: str
    arguments: str


class Reply(NamedTuple):
    """An answer in its parts."""

    content: str
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()


class CallFrame(NamedTuple):
    """What a template writes before the name of a called tool, between name and arguments, and after them."""

    before: str
    between: str
    after: str


@dataclass
class ReplyReader:
    """Reads the answers of a causal model.

    Args:
        codec: Of the model; one that no other thread uses.
        tools: Whether the prompts have tools.
    """

    codec: CausalCodec
    tools: bool = False

    def read(self, ids: list[int]) -> Reply:
        """The parts of an answer.

        Args:
            ids: What was generated, without the stop token.
        """
        text = self.codec.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        reasoning, text = self._reasoning(text)
        calls, text = self._calls(text)
        if not (reasoning or calls):
            return Reply(self.codec.decode(ids))
        return Reply("".join(self.codec.template.split(text)[::2]).strip(), reasoning, tuple(calls))

    @cached_property
    def _lead(self) -> str:
        return "".join(self.codec.template.layout.lead)

    def _reasoning(self, text: str) -> tuple[str | None, str]:
        start, end = self._reasoning_frame
        if not end or not text.lstrip().startswith(start) or end not in text:
            return None, text.removeprefix(self._lead)
        reasoning, _, rest = text.lstrip().removeprefix(start).partition(end)
        return reasoning.strip() or None, rest

    def _calls(self, text: str) -> tuple[list[Call], str]:
        frame, calls = self._call_frame, []
        if not (self.tools and frame):
            return [], text
        head = re.compile(rf"{re.escape(frame.before)}([^\s\"<>{{}}]+){re.escape(frame.between)}\s*")
        content, position = None, 0
        while match := head.search(text, position):
            try:
                _, end = json.JSONDecoder().raw_decode(text, match.end())
            except ValueError:
                break
            calls.append(Call(match.group(1), text[match.end() : end]))
            content = text[: match.start()] if content is None else content
            position = end
        return calls, text if content is None else content

    @cached_property
    def _reasoning_frame(self) -> tuple[str, str]:
        """Before and after reasoning, without white space at their ends; empty if the template writes none."""
        if not self.codec.template.traits.shows_reasoning():
            return "", ""
        before, _, after = self._probe(Turn("assistant", "Yes", reasoning=PROBE)).partition(PROBE)
        return before.strip(), after.partition("Yes")[0].strip()

    @cached_property
    def _call_frame(self) -> CallFrame | None:
        """Around name and arguments; None if the template writes no JSON there."""
        template = self.codec.template.for_tools((json.dumps(TOOL),))
        if template.traits.call_form is None:
            return None
        text = self._probe(Turn("assistant", "", tool_calls=(call({"zq_one": "zq two"}),)))
        place = text.find(ARGUMENTS)
        name = text.rfind("zq_tool", 0, max(place, 0))
        if place < 0 or name < 0:
            return None
        before = text[:name].removeprefix(self._lead).lstrip()
        return CallFrame(before, text[name + len("zq_tool") : place], text[place + len(ARGUMENTS) :])

    def _probe(self, turn: Turn) -> str:
        tools = (json.dumps(TOOL),) if turn.tool_calls else ()
        try:
            return "".join(self.codec.dialogue(self.codec.template.render([USER], tools), turn).rest)
        except UserError:
            return ""
