"""The constant texts between the turns of a conversation, found by rendering a chat template; the same as a Go template."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmft.data.records import Turn
from llmft.data.tokenization.source import clock_formats, clock_is_stopped
from llmft.data.tokenization.traits import Traits
from llmft.utils.errors import UserError

SYSTEM, ANSWERS, QUESTIONS = "zqsystem", ("zqfirst", "zqsecond"), ("zqone", "zqtwo", "zqthree")
# Other conversations on which the derived shape must agree with the template: lengths, signs, several lines.
CHECKS = (
    (None, ("What is 2 + 2?",), ()),
    ("Answer in one word.", ("Hello {there}",), ()),
    ("Be brief:\n- no lists", ("A\n\nB", "Why?"), ("It is 4.",)),
    (None, ("one", "two", "three", "four"), ("1", "2\n3", "{{4}}")),
)
PADDED = (" A ", (" B ", " C "), (" D ",))


class ShapeError(Exception):
    """A chat template that constant texts between the turns cannot express; the message is the reason."""


@dataclass(frozen=True)
class TurnShape:
    r"""The texts around the turns: ``<|im_start|>system\n``, ``<|im_end|>\n<|im_start|>user\n``, ...

    Attributes:
        before_system: Start of a conversation with a system prompt.
        after_system: Between the system prompt and the first question.
        no_system: Start of a conversation without a system prompt.
        before_answer: Between a question and its answer, in the history.
        after_answer: Between an answer and the next question.
        generation: After the last question.
        strips: Whether the template strips white space around a turn, which the shape does not.
    """

    before_system: str
    after_system: str
    no_system: str
    before_answer: str
    after_answer: str
    generation: str
    strips: bool = False

    def render(self, system: str | None, questions: Sequence[str], answers: Sequence[str]) -> str:
        """The prompt for the next answer, as ``go_template`` renders it."""
        text = self.no_system if system is None else self.before_system + system + self.after_system
        for question, answer in zip(questions, answers, strict=False):
            text += question + self.before_answer + answer + self.after_answer
        return text + questions[-1] + self.generation

    def without_bos(self, bos: str) -> "TurnShape":
        """The shape for a runtime that adds the BOS itself.

        Raises:
            ShapeError: Only some conversations start with it.
        """
        starts = [self.before_system.startswith(bos), self.no_system.startswith(bos)]
        if not all(starts):
            raise ShapeError(f"not every conversation starts with {bos}")
        return replace(self, before_system=self.before_system[len(bos) :], no_system=self.no_system[len(bos) :])


def turn_shape(traits: Traits) -> TurnShape:
    """Find the shape of a chat template.

    Raises:
        ShapeError: It has none: it writes the date, keeps the system prompt elsewhere, treats turns by their number, ...
    """
    if clock_formats(traits.source) and not clock_is_stopped(traits.source):
        raise ShapeError("it writes the date of the day; a training with prompt.date=YYYY-MM-DD fixes it")
    render = _renderer(traits)
    before_system, after_system, before, after, again, after_again, generation = _between(
        render(SYSTEM, QUESTIONS, ANSWERS), [SYSTEM, "zqone", "zqfirst", "zqtwo", "zqsecond", "zqthree"]
    )
    no_system = _between(render(None, QUESTIONS[:1], ()), ["zqone"])[0]
    if (before, after) != (again, after_again):
        raise ShapeError("it writes later turns otherwise than the first")
    shape = TurnShape(before_system, after_system, no_system, before, after, generation)
    for conversation in CHECKS:
        if shape.render(*conversation) != render(*conversation):
            raise ShapeError("it writes more than constant texts between the turns")
    return replace(shape, strips=shape.render(*PADDED) != render(*PADDED))


def _renderer(traits: Traits) -> Callable[[str | None, Sequence[str], Sequence[str]], str]:
    def render(system: str | None, questions: Sequence[str], answers: Sequence[str]) -> str:
        turns = [Turn("system", system)] if system else []
        for question, answer in zip(questions, answers, strict=False):
            turns += [Turn("user", question), Turn("assistant", answer)]
        try:
            return traits.text(traits.messages([*turns, Turn("user", questions[-1])]), generate=True)
        except UserError as error:
            raise ShapeError(f"it fails on a conversation ({error})") from None

    return render


def _between(text: str, markers: Sequence[str]) -> list[str]:
    """The texts before, between and after the markers.

    Raises:
        ShapeError: One is missing, occurs twice, or they have another order.
    """
    parts = re.split("(" + "|".join(markers) + ")", text)
    if parts[1::2] != list(markers):
        raise ShapeError("it does not write every turn once and in order")
    return parts[::2]


def go_template(shape: TurnShape) -> str:
    r"""A shape in the syntax of Go's text/template, over ``.System`` and ``.Messages`` of Ollama.

    System messages are in ``.System`` already, so the loop skips them. Texts are Go strings (``"\n"``): ``{{-`` removes white
    space around an action, never inside of a string.
    """
    text = {name: _action(value) for name, value in vars(shape).items() if isinstance(value, str)}
    last = "{{ if $last }}" + text["generation"] + "{{ else }}" + text["before_answer"] + "{{ end }}"
    return (
        "{{- if .System }}" + text["before_system"] + "{{ .System }}" + text["after_system"]
        + "{{ else }}" + text["no_system"] + "{{ end }}\n"
        "{{- range $i, $_ := .Messages }}\n"
        "{{- $last := eq (len (slice $.Messages $i)) 1 }}\n"
        '{{- if eq .Role "user" }}{{ .Content }}' + last + "\n"
        '{{- else if eq .Role "assistant" }}{{ .Content }}{{ if not $last }}' + text["after_answer"] + "{{ end }}\n"
        "{{- end }}\n"
        "{{- end }}"
    )  # fmt: skip


def _action(text: str) -> str:
    """A text as an action that writes it; empty for an empty text."""
    return f'{{{{ "{go_escaped(text)}" }}}}' if text else ""


def go_escaped(text: str) -> str:
    r"""The inside of a Go string; a quotation mark is ``\x22``, since a Modelfile ends a text at three of them."""
    names = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\", '"': r"\x22"}
    return "".join(names.get(c) or (c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode())) for c in text)
