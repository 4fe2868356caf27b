"""Prompt templates: render a context to text, by one Jinja template for training, generation and export."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmft.data.records import Turn
from llmft.utils.errors import UserError

# First of the private-use characters that replace control tokens in users' texts while the template is rendered.
PRIVATE = 0xF0000


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt as ``text, control token, text, ...``; control tokens in users' texts are text."""

    pieces: tuple[str, ...]

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
    """

    source: str
    controls: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        longest_first = sorted(self.controls, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def render(self, context: Sequence[Turn]) -> Prompt:
        """Render the prompt for the assistant's next turn.

        Raises:
            UserError: The template fails on these turns.
        """
        return self._pieces(context, answer=None)

    @cached_property
    def frame(self) -> tuple[str, str | None]:
        """The text between prompt and answer (mostly ``""``), and the control token right after the answer."""
        turns, answer = (Turn("user", "Hi"),), "Yes"
        before, found, after = self._pieces(turns, answer).text.rpartition(answer)
        prompt = self.render(turns).text
        match = self._control.match(after) if self._control and found else None
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return lead, match.group() if match else None

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template has a system turn; if not, its text goes before the first user turn."""
        probe = (Turn("system", "Zq system probe"), Turn("user", "Hi"))
        try:
            return "Zq system probe" in self._render([turn.message() for turn in probe], answer=None)
        except UserError:
            return False

    def _pieces(self, context: Sequence[Turn], answer: str | None) -> Prompt:
        if context[0].role == "system" and not self.takes_system:
            system, first, *rest = context
            context = (Turn(first.role, f"{system.content}\n\n{first.content}", first.input), *rest)
        messages = [turn.message() for turn in context]
        if self._control is None:
            return Prompt((self._render(messages, answer),))
        typed = any(self._control.search(text) for message in messages for text in message.values())
        hide, show = _private_characters(messages, self.controls) if typed else ({}, {})
        hidden = (
            [{k: self._control.sub(lambda m: hide[m.group()], v) for k, v in m.items()} for m in messages]
            if typed
            else messages
        )
        text = self._render(hidden, answer)
        pieces: list[str] = []
        end = 0
        for match in self._control.finditer(text):
            pieces += [text[end : match.start()], match.group()]
            end = match.end()
        pieces.append(text[end:])
        if not typed:
            return Prompt(tuple(pieces))
        return Prompt(tuple("".join(show.get(char, char) for char in piece) for piece in pieces))

    def _render(self, messages: list[dict[str, str]], answer: str | None) -> str:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        if answer is not None:
            messages = [*messages, Turn("assistant", answer).message()]
        try:
            rendered, _ = render_jinja_template(
                conversations=[messages],
                chat_template=self.source,
                add_generation_prompt=answer is None,
                **self.variables,  # pyright: ignore[reportArgumentType]
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"prompt template: {error} (turns: {roles}); choose another with prompt=NAME") from None
        return rendered[0]


def _private_characters(
    messages: Iterable[dict[str, str]], controls: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    used = set().union(*(value for message in messages for value in message.values()))
    free = (chr(code) for code in range(PRIVATE, PRIVATE + 0xFFFD) if chr(code) not in used)
    hide = dict(zip(controls, free, strict=False))
    return hide, {char: token for token, char in hide.items()}
