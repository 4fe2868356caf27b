"""Truncation: encode an example within the token budgets, or report why it does not fit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.data.tokenization.template import Prompt

Context = tuple[Turn, ...]


class TooLongError(Exception):
    """An example over a budget that the policy cannot truncate."""

    def __init__(self, part: str, tokens: int, budget: int) -> None:
        super().__init__(f"has {tokens} tokens, data.max_{part}_tokens is {budget}")
        self.part = part


class Truncated(NamedTuple):
    """An encoded example within the budgets, the truncated parts of its prompt, and the prompt's tokens before truncation."""

    row: EncodedExample
    trimmed: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Truncation:
    """Max tokens of prompt and answer (the answer with its stop token), and the policy for longer examples."""

    max_prompt: int
    max_answer: int
    too_long: str

    def fit(self, example: Example, codec: Codec, prompt: Prompt | None = None) -> Truncated:
        """Encode an example, truncated by the policy if it is over a budget.

        ``trim_prompt`` cuts the end of the system prompt or of an input, the longest first, never the template or the question;
        ``trim_answer`` cuts the end of the answer, which then has no stop token.

        Args:
            example: To be encoded.
            codec: Encodes it.
            prompt: Its rendered prompt; None renders it.

        Raises:
            TooLongError: The example is over a budget, and the policy does not allow or achieve its truncation.
        """

        def excess(context: Context) -> int:
            return len(codec.prompt_ids(codec.template.render(context, example.tools))) - self.max_prompt

        cut_at = self.max_answer if self.too_long == "trim_answer" else None
        context, trimmed = example.context, ()
        prompt, reply = prompt or codec.template.render(context, example.tools), example.reply
        encoded = codec.encode(prompt, reply, cut_at)
        length = encoded.prompt_length
        if length > self.max_prompt:
            trims = self.too_long == "trim_prompt"
            shorter = shorten(context, excess, length - self.max_prompt) if trims else None
            if shorter is None:
                raise TooLongError("prompt", length, self.max_prompt)
            context, trimmed = shorter
            prompt = codec.template.render(context, example.tools)
            encoded = codec.encode(prompt, reply, cut_at)
        if encoded.answer_length > self.max_answer and cut_at is None:
            raise TooLongError("answer", encoded.answer_length, self.max_answer)
        encoded = codec.with_turns(encoded, prompt, example)
        return Truncated(replace(encoded, place=example.place), trimmed, length)


def shorten(context: Context, excess: Callable[[Context], int], over: int) -> tuple[Context, tuple[str, ...]] | None:
    """Truncate the system prompt and the inputs of a context until it fits.

    The longest is cut first, at its end; it is emptied before the next one is cut.

    Args:
        context: A context over the budget.
        excess: Tokens of a context over the budget, at most 0 if it fits.
        over: The excess of ``context``.

    Returns:
        The context and the names of its truncated parts; None if the questions are too long by themselves.
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
    """The max number of characters whose ``excess`` is at most 0, by interpolation search (every third step bisects)."""
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
