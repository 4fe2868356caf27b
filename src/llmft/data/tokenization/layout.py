"""How a chat template writes an assistant turn: what precedes and follows its text, found by rendering with and without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmft.data.records import Turn
from llmft.data.tokenization.pieces import Pieces, blank_run, common_end, common_start, ends_with, rest_after
from llmft.data.tokenization.traits import TOOL, Traits, call
from llmft.utils.errors import UserError

USER = Turn("user", "Hi")
ANSWERS = ("Yes", "Not so!")
ARGUMENTS = ({"zq_one": 1}, {"zq_two": "zq three"})
Split = Callable[[str], Pieces]


@dataclass(frozen=True)
class Tail:
    """What follows the text of an assistant turn at the end of a conversation.

    Attributes:
        pieces: ``control token, text, control token, text, ...``; empty if the template writes no control token there.
        stop: The control token that ends the turn.
    """

    pieces: Pieces
    stop: str

    def cut(self, whole: Pieces) -> Pieces | None:
        """A conversation up to its last stop token; None if it ends otherwise."""
        first = len(whole) - len(self.pieces)
        if first < 0 or whole[first:] != self.pieces:
            return None
        kept = self.pieces.index(self.stop) + 1 if self.stop in self.pieces[::2] else None
        return (*whole[: first + kept], "") if kept else (*whole, self.stop, "")


@dataclass(frozen=True)
class Layout:
    """How a template writes an assistant turn.

    Attributes:
        prompt: A generation prompt after one short question.
        shared: The start of that prompt that the template writes before an answer too.
        lead: What it writes between the two and the text of an answer, which the model has to generate.
        plain: What follows an answer.
        calls: What follows tool calls; None if the template has no place for them.
    """

    prompt: Pieces
    shared: Pieces
    lead: Pieces
    plain: Tail
    calls: Tail | None

    @property
    def stops(self) -> tuple[str, ...]:
        """The control tokens that end a turn."""
        return tuple(dict.fromkeys([self.plain.stop, *([self.calls.stop] if self.calls else [])]))

    @property
    def continues(self) -> bool:
        """Whether the generation prompt is the start of what the template writes with an answer."""
        return self.shared == self.prompt

    def tail(self, reply: Turn) -> Tail:
        """What follows a turn of this kind."""
        return self.calls if reply.tool_calls and self.calls else self.plain

    @classmethod
    def of(cls, traits: Traits, split: Split, stops: Sequence[str]) -> "Layout":
        """The layout of a template.

        Args:
            traits: What the template does.
            split: Splits a rendered text at control tokens.
            stops: Control tokens that end every generation, the tokenizer's EOS first.

        Raises:
            UserError: The template leaves out or changes an answer, or nothing ends it.
        """
        prompt = split(traits.text(traits.messages([USER]), generate=True))
        yes, no = (_rendered(traits, split, Turn("assistant", answer)) for answer in ANSWERS)
        shared = common_start(prompt, yes, no)
        rests = [rest for rest in (rest_after(shared, yes), rest_after(shared, no)) if rest]  # both have one
        lead, end = common_start(*rests), common_end(yes, no)
        middle = [rest[len(lead) - 1 : len(rest) - len(end)] for rest in rests]
        if any(
            len(text) != 1 or not text[0].startswith(lead[-1] + answer)
            for text, answer in zip(middle, ANSWERS, strict=True)
        ):
            raise _refused("does not write the text of an answer as it is")
        plain = Tail(end, _stop(end, stops, _follower(traits, split, yes, Turn("user", "So?")), None))
        return cls(prompt, shared, lead, plain, _calls(traits, split, stops, plain.stop))


def _rendered(traits: Traits, split: Split, *turns: Turn) -> Pieces:
    tools = [TOOL] if any(turn.tool_calls for turn in turns) else None
    return split(traits.text(traits.messages([USER, *turns]), tools))


def _calls(traits: Traits, split: Split, stops: Sequence[str], plain: str) -> Tail | None:
    if traits.call_form is None:
        return None
    one, other = (Turn("assistant", "", tool_calls=(call(arguments),)) for arguments in ARGUMENTS)
    first = _rendered(traits, split, one)
    end = common_end(first, _rendered(traits, split, other))
    result = Turn("tool", "zqresult", name="zq_tool", tool_call_id="zqcallid1")
    return Tail(end, _stop(end, stops, _follower(traits, split, first, one, result) if traits.results else "", plain))


def _follower(traits: Traits, split: Split, whole: Pieces, *turns: Turn) -> str:
    """The control token that the next turn starts with, right after the answer; empty if there is none."""
    try:
        answer = [Turn("assistant", ANSWERS[0])] if turns[0].role == "user" else []
        rest = rest_after(whole, _rendered(traits, split, *answer, *turns))
    except UserError:
        return ""
    return rest[1] if rest and len(rest) > 1 and not rest[0].strip() else ""


def _stop(end: Pieces, stops: Sequence[str], follower: str, plain: str | None) -> str:
    """The control token that ends a turn: one that ends every generation, else one that the template writes after it.

    Args:
        end: What follows the turn.
        stops: As of ``Layout.of``.
        follower: The control token that the next turn starts with.
        plain: The stop token of an answer without calls; None for that one itself.

    Raises:
        UserError: There is none.
    """
    written = end[::2]
    if plain in written:
        return plain
    if known := [control for control in (*written, follower) if control in stops]:
        return known[0]
    if written:
        return written[0] if plain is None else blank_run(end)[-1]
    if not (plain or stops):
        raise _refused("writes no control token after an answer, and the tokenizer has no EOS")
    return plain or stops[0]


def _refused(why: str) -> UserError:
    return UserError(f"prompt template: {why}, so it cannot be told which tokens to train; choose another prompt")


def answer_of(
    prompt: Pieces, whole: Pieces, layout: Layout, alone: Callable[[], Pieces], *, reasons: bool
) -> tuple[Pieces, bool]:
    """What the model has to generate, and whether the conversation continues the prompt.

    Args:
        prompt: The generation prompt.
        whole: The conversation up to its last stop token.
        layout: Of the template.
        alone: Renders the answer after the question of ``layout.prompt``, up to its stop token.
        reasons: Whether the answer has reasoning.

    Raises:
        UserError: The template writes the answer differently in this conversation.
    """
    rest = rest_after(prompt, whole)
    if rest is not None:
        return rest, True
    rest = rest_after(layout.shared, alone())
    if rest is None or not ends_with(whole, rest):
        if reasons:
            raise UserError(
                "prompt template: its generation prompt closes the reasoning, so that of an answer cannot be trained; use"
                " data.reasoning=drop, or prompt.template_kwargs to open it"
            )
        raise _refused("writes this answer in a way of its own")
    return rest, False
