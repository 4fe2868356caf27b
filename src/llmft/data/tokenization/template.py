"""Prompt templates: render turns to text, by one Jinja template for training, generation and export."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llmft.data.records import Example, Turn, shown
from llmft.data.tokenization.layout import Layout
from llmft.data.tokenization.pieces import Pieces
from llmft.data.tokenization.source import clock_formats, clock_is_stopped
from llmft.data.tokenization.traits import TOOL, Traits, render

# First of the private-use characters that replace control tokens in users' texts while the template is rendered.
PRIVATE = 0xF0000


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt as ``text, control token, text, ...``; control tokens in users' texts are text.

    Attributes:
        pieces: The texts and control tokens.
        context: The turns that it was rendered from; empty if it is a text of its own.
        tools: As ``Example.tools``.
    """

    pieces: Pieces
    context: tuple[Turn, ...] = field(default=(), compare=False, repr=False)
    tools: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def text(self) -> str:
        """The prompt as one string."""
        return "".join(self.pieces)

    def followed_by(self, answer: str) -> "Prompt":
        """The prompt followed by an answer, which is text even if it contains control tokens."""
        return Prompt((*self.pieces[:-1], self.pieces[-1] + answer))


@dataclass(frozen=True)
class PromptTemplate:
    """A chat template (Jinja over ``messages``) with the control tokens of the tokenizer.

    Attributes:
        source: The template.
        controls: Strings that the tokenizer encodes as single special ids.
        variables: Variables of the template besides ``messages`` (``bos_token``, ``eos_token``, ...).
        with_tools: The template for conversations with tools, if it is another one.
        needs_tools: Whether this is that other one.
        reasoning: ``data.reasoning``: ``template``, ``keep`` or ``drop``.
        stops: Control tokens that end a generation whatever the template is: the tokenizer's EOS and the model's.
    """

    source: str
    controls: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    with_tools: "PromptTemplate | None" = None
    reasoning: str = "template"
    stops: tuple[str, ...] = ()
    needs_tools: bool = False

    @property
    def saved(self) -> str | dict[str, str]:
        """The template as the ``chat_template`` of a tokenizer."""
        return {"default": self.source, "tool_use": self.with_tools.source} if self.with_tools else self.source

    def notes(self) -> list[str]:
        """What the template adds by itself: a system prompt, the date of the day."""
        notes = []
        if own := self.traits.own_system.strip():
            notes.append(f"the prompt template adds its own system prompt to rows without one: {shown(own, 200)}")
        if clock_formats(self.source) and not clock_is_stopped(self.source):
            notes.append(
                "the prompt template writes the date of the day; prompt.date=YYYY-MM-DD keeps it the same in answers"
            )
        return notes

    def for_tools(self, tools: Sequence[str]) -> "PromptTemplate":
        """The template that renders a conversation with these tools."""
        return self.with_tools if tools and self.with_tools else self

    def render(self, context: Sequence[Turn], tools: Sequence[str] = ()) -> Prompt:
        """Render the prompt for the assistant's next turn.

        Raises:
            UserError: The template fails on these turns.
        """
        template = self.for_tools(tools)
        return Prompt(template.pieces(context, tools), tuple(context), tuple(tools))

    @cached_property
    def traits(self) -> Traits:
        """What the template does with system prompts, reasoning and tools."""
        return Traits(self.source, self.variables, self.needs_tools)

    @cached_property
    def layout(self) -> Layout:
        """How the template writes an assistant turn.

        Raises:
            UserError: It cannot be told apart from the rest of a conversation.
        """
        return Layout.of(self.traits, self.split, self.stops)

    @property
    def probe_tools(self) -> tuple[str, ...]:
        """Tools for a conversation that is rendered only to see how the template writes an answer."""
        return (json.dumps(TOOL),) if self.needs_tools else ()

    @cached_property
    def frame(self) -> tuple[str, str | None]:
        """The text between prompt and answer (mostly ``""``), and the control token right after the answer."""
        turns, answer = [Turn("user", "Hi").message()], "Yes"
        whole = render(self.source, [*turns, Turn("assistant", answer).message()], self.variables)
        before, found, after = whole.rpartition(answer)
        prompt = render(self.source, turns, self.variables, generate=True)
        match = self._control.match(after) if self._control and found else None
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return lead, match.group() if match else None

    @property
    def takes_system(self) -> bool:
        """Whether the template has a system turn; if not, its text goes before the first user turn."""
        return self.traits.system

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        return _any_of(self.controls)

    @cached_property
    def _hidden(self) -> re.Pattern[str] | None:
        return _any_of([*self.controls, *(self.traits.tags or ())])

    @cached_property
    def _hidden_starts(self) -> frozenset[str]:
        return frozenset(text[0] for text in (*self.controls, *(self.traits.tags or ())))

    def _is_typed(self, text: str) -> bool:
        """Whether a text of a user may contain a control token (most have no first character of one, which is found fast)."""
        for start in self._hidden_starts:
            if start in text:
                return self._hidden is not None and bool(self._hidden.search(text))
        return False

    def split(self, text: str) -> Pieces:
        """A rendered text as ``text, control token, text, ...``."""
        if self._control is None:
            return (text,)
        pieces: list[str] = []
        end = 0
        for match in self._control.finditer(text):
            pieces += [text[end : match.start()], match.group()]
            end = match.end()
        return (*pieces, text[end:])

    def pieces(self, turns: Sequence[Turn], tools: Sequence[str] = (), *, generate: bool = True) -> Pieces:
        """The turns as the template renders them, with the generation prompt or without.

        Raises:
            UserError: The template fails on these turns, or has no place for something in them.
        """
        messages = self.traits.messages([self.prepared(turn) for turn in turns])
        parsed = [json.loads(tool) for tool in tools] or None
        kept = None if generate else self._kept_reasoning(turns[-1])
        if tools or any(turn.tool_calls for turn in turns):  # their JSON may escape what it means
            texts = texts_in([messages, parsed])
        else:
            texts = (text for turn in turns for text in turn.texts())
        typed = any(map(self._is_typed, texts))
        if not (typed or kept):
            return self.split(render(self.source, messages, self.variables, parsed, generate=generate))
        return self._with_typed_controls(messages, parsed, kept, generate=generate)

    def prepared(self, turn: Turn) -> Turn:
        """An assistant turn whose reasoning tags are parsed, its reasoning dropped if ``data.reasoning`` says so."""
        if turn.role != "assistant":
            return turn
        turn = self.traits.parsed(turn)
        return replace(turn, reasoning=None) if turn.reasoning and self.reasoning == "drop" else turn

    def typed_texts(self, example: Example) -> Iterator[str]:
        """The texts of an example that stay text: without the tags of its reasoning, which are parsed."""
        for turn in (*example.context, example.reply):
            yield from self.prepared(turn).texts()
        yield from example.tools

    def _kept_reasoning(self, turn: Turn) -> tuple[str, str, str] | None:
        """Open tag, reasoning and close tag for an answer whose reasoning the template would leave out."""
        reasoning = self.prepared(turn).reasoning if self.reasoning == "keep" else None
        if not reasoning or self.traits.shows_reasoning(calls=bool(turn.tool_calls)):
            return None
        start, end = self.traits.tags or ("<think>", "</think>")
        return start, f"\n{reasoning}\n", end

    def _with_typed_controls(
        self, messages: list[dict[str, Any]], tools: Any, kept: tuple[str, str, str] | None, *, generate: bool
    ) -> Pieces:
        """As ``pieces``: control tokens in texts are private-use characters while the template is rendered."""
        assert self._hidden is not None or kept
        hidden_strings = [*self.controls, *(self.traits.tags or ())]
        free = _free_characters(texts_in([messages, tools, kept or ()]))
        hide = dict(zip(dict.fromkeys(hidden_strings), free, strict=False))
        show = {char: token for token, char in hide.items()}

        def hidden(text: str) -> str:
            return self._hidden.sub(lambda match: hide[match.group()], text) if self._hidden else text

        messages, tools = _mapped(messages, hidden), _mapped(tools, hidden)
        tags: dict[str, str] = {}
        if kept:
            start, reasoning, end = kept
            tags = dict(zip(free, (start, end), strict=False))
            first, last = tags
            content = messages[-1].get("content", "")
            messages[-1]["content"] = f"{first}{hidden(reasoning)}{last}\n\n{content}"
        text = render(self.source, messages, self.variables, tools, generate=generate)
        if kept:  # instead of the empty block of the template
            text = re.sub(rf"{re.escape(kept[0])}\s*{re.escape(kept[2])}\s*(?={min(tags)})", "", text)
        pieces = self.split("".join(tags.get(char, char) for char in text) if tags else text)
        return tuple("".join(show.get(char, char) for char in piece) for piece in pieces)


def _any_of(strings: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a value of JSON, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _free_characters(texts: Iterable[str]) -> Iterator[str]:
    used = set().union(*texts)
    return (chr(code) for code in range(PRIVATE, PRIVATE + 0xFFFD) if chr(code) not in used)
