"""An Example and the token budgets -> an encoded row that fits, or the reason why it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from llmft.encoding import Codec, Encoded
from llmft.prompts import Prompt
from llmft.records import Example, Turn

Context = tuple[Turn, ...]


class TooLongError(Exception):
    """A row over a budget that its policy does not bring under it."""

    def __init__(self, part: str, tokens: int, budget: int) -> None:
        super().__init__(f"has {tokens} tokens, data.max_{part}_tokens is {budget}")
        self.part = part


class Fitted(NamedTuple):
    """A row within its budgets, the parts of its prompt that were trimmed, and the prompt's tokens before that."""

    row: Encoded
    trimmed: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Fitting:
    """Budgets of prompt and answer in tokens (the answer's with its stop token), and what to do beyond them."""

    max_prompt: int
    max_answer: int
    too_long: str

    def fit(self, example: Example, codec: Codec, prompt: Prompt | None = None) -> Fitted:
        """The encoded row.

        A prompt loses the end of its system text or of an input, the longest first, never the template's frame nor the
        question; a cut answer keeps its head and gets no stop token.

        Args:
            example: What is encoded.
            codec: By what.
            prompt: The example's, where it has been rendered already.

        Raises:
            TooLongError: The row is over a budget and the policy is another, or trimming was not enough.
        """

        def tokens(context: Context) -> int:
            return len(codec.prompt_ids(codec.template.render(context)))

        cut_at = self.max_answer if self.too_long == "trim_answer" else None
        context, trimmed = example.context, ()
        encoded = codec.encode(prompt or codec.template.render(context), example.answer, cut_at)
        length = encoded.prompt_length
        if length > self.max_prompt:
            shorter = (
                shorten(context, lambda c: tokens(c) <= self.max_prompt) if self.too_long == "trim_prompt" else None
            )
            if shorter is None:
                raise TooLongError("prompt", length, self.max_prompt)
            context, trimmed = shorter
            encoded = codec.encode(codec.template.render(context), example.answer, cut_at)
        if encoded.answer_length > self.max_answer and cut_at is None:
            raise TooLongError("answer", encoded.answer_length, self.max_answer)
        encoded = codec.with_turns(encoded, context)
        return Fitted(replace(encoded, place=example.place), trimmed, length)


def shorten(context: Context, fits: Callable[[Context], bool]) -> tuple[Context, tuple[str, ...]] | None:
    """The context with as much of its system text and inputs as fits, and which of them lost something.

    The longest is cut first, at its end; a part that is not enough is emptied before the next one is cut.

    Returns:
        None if the questions alone are too long.
    """
    parts = [(i, "content", "system") for i, turn in enumerate(context) if turn.role == "system"]
    parts += [(i, "input", "input") for i, turn in enumerate(context) if turn.input]
    parts.sort(key=lambda part: len(getattr(context[part[0]], part[1])), reverse=True)
    trimmed: list[str] = []
    for index, name, part in parts:
        text = getattr(context[index], name)
        trimmed.append(part)

        def kept(
            characters: int, *, index: int = index, name: str = name, text: str = text, base: Context = context
        ) -> Context:
            turn = replace(base[index], **{name: text[:characters].rstrip()})
            return (*base[:index], turn, *base[index + 1 :])

        if fits(kept(0)):
            low, high = 0, len(text)  # low fits, high does not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fits(kept(middle)) else (low, middle)
            return kept(low), tuple(trimmed)
        context = kept(0)
    return None
