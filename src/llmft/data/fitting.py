"""An Example and the token budgets -> an encoded row that fits, or the reason why it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from llmft.encoding import Codec, Encoded
from llmft.records import Example, Turn

Context = tuple[Turn, ...]


class TooLongError(Exception):
    """A row over a budget that its policy does not bring under it."""

    def __init__(self, part: str, tokens: int, budget: int) -> None:
        super().__init__(f"has {tokens} tokens, data.max_{part}_tokens is {budget}")
        self.part = part


@dataclass(frozen=True)
class Fitting:
    """Budgets of prompt and answer in tokens (the answer's with its stop token), and what to do beyond them."""

    max_prompt: int
    max_answer: int
    too_long: str

    def fit(self, example: Example, codec: Codec) -> tuple[Encoded, bool]:
        """The encoded row, and whether its prompt was trimmed.

        A prompt loses the end of its system text first, then of its inputs, never the template's frame nor the question;
        a cut answer keeps its head and gets no stop token.

        Raises:
            TooLongError: The row is over a budget and the policy is another, or trimming was not enough.
        """

        def tokens(context: Context) -> int:
            return len(codec.prompt_ids(codec.template.render(context)))

        length, context = tokens(example.context), example.context
        if length > self.max_prompt:
            shorter = (
                shorten(context, lambda c: tokens(c) <= self.max_prompt) if self.too_long == "trim_prompt" else None
            )
            if shorter is None:
                raise TooLongError("prompt", length, self.max_prompt)
            context = shorter
        cut_at = self.max_answer if self.too_long == "trim_answer" else None
        encoded = codec.encode(codec.template.render(context), example.answer, cut_at)
        if encoded.answer_length > self.max_answer and cut_at is None:
            raise TooLongError("answer", encoded.answer_length, self.max_answer)
        encoded = codec.with_turns(encoded, context)
        return replace(encoded, place=example.place), context is not example.context


def shorten(context: Context, fits: Callable[[Context], bool]) -> Context | None:
    """The context with as much of its system text and inputs as fits, or None if the questions alone are too long."""
    parts = [(i, "content") for i, turn in enumerate(context) if turn.role == "system"]
    parts += [(i, "input") for i, turn in enumerate(context) if turn.input]
    for index, name in parts:
        text = getattr(context[index], name)

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
            return kept(low)
        context = kept(0)
    return None
