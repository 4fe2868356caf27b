"""An Example and the token budgets -> an encoded row that fits, or the reason why it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.data.tokenization.template import Prompt

Context = tuple[Turn, ...]


class TooLongError(Exception):
    """A row over a budget that its policy does not bring under it."""

    def __init__(self, part: str, tokens: int, budget: int) -> None:
        super().__init__(f"has {tokens} tokens, data.max_{part}_tokens is {budget}")
        self.part = part


class Truncated(NamedTuple):
    """A row within its budgets, the parts of its prompt that were trimmed, and the prompt's tokens before that."""

    row: EncodedExample
    trimmed: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Truncation:
    """Budgets of prompt and answer in tokens (the answer's with its stop token), and what to do beyond them."""

    max_prompt: int
    max_answer: int
    too_long: str

    def fit(self, example: Example, codec: Codec, prompt: Prompt | None = None) -> Truncated:
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

        def excess(context: Context) -> int:
            return len(codec.prompt_ids(codec.template.render(context))) - self.max_prompt

        cut_at = self.max_answer if self.too_long == "trim_answer" else None
        context, trimmed = example.context, ()
        encoded = codec.encode(prompt or codec.template.render(context), example.answer, cut_at)
        length = encoded.prompt_length
        if length > self.max_prompt:
            trims = self.too_long == "trim_prompt"
            shorter = shorten(context, excess, length - self.max_prompt) if trims else None
            if shorter is None:
                raise TooLongError("prompt", length, self.max_prompt)
            context, trimmed = shorter
            encoded = codec.encode(codec.template.render(context), example.answer, cut_at)
        if encoded.answer_length > self.max_answer and cut_at is None:
            raise TooLongError("answer", encoded.answer_length, self.max_answer)
        encoded = codec.with_turns(encoded, context)
        return Truncated(replace(encoded, place=example.place), trimmed, length)


def shorten(context: Context, excess: Callable[[Context], int], over: int) -> tuple[Context, tuple[str, ...]] | None:
    """The context with as many tokens of its system text and inputs as fit, and which of them lost something.

    The longest is cut first, at its end; a part that is not enough is emptied before the next one is cut.

    Args:
        context: A context that is too long.
        excess: The tokens of a context over the budget, at most 0 where it fits.
        over: Those of ``context``.

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

        emptied = excess(kept(0))
        if emptied <= 0:
            end = _longest(lambda n: excess(kept(n)), len(text), emptied, over)
            return kept(end), tuple(trimmed)
        context, over = kept(0), emptied
    return None


def _longest(excess: Callable[[int], int], length: int, emptied: int, over: int) -> int:
    """The most characters whose ``excess`` is at most 0: guessed from the tokens at both ends, and every third time halved."""
    low, high, steps = 0, length, 0  # low fits with ``emptied`` to spare, high does not by ``over``
    while high - low > 1 and emptied < 0:
        steps += 1
        share = 0.5 if steps % 3 == 0 else -emptied / (over - emptied)
        middle = min(max(low + round((high - low) * share), low + 1), high - 1)
        found = excess(middle)
        if found <= 0:
            low, emptied = middle, found
        else:
            high, over = middle, found
    return low
