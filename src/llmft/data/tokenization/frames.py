"""Special tokens that a tokenizer adds to raw text (EOS, BOS, language codes), in the source and the target of seq2seq models."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmft.utils.errors import UserError


class Frame(NamedTuple):
    """Ids before and after the ids of a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class TargetFrame(NamedTuple):
    """How the labels of an encoder-decoder begin, and where its decoder starts.

    Attributes:
        forced: First ids of the labels, at most one, which generation forces (``forced_bos_token_id``): the BOS of BART, the
            language code of NLLB, M2M100 and mBART-50.
        start: The start token of the decoder, if it is not that of the model's config: the language code of mBART.
    """

    forced: tuple[int, ...] = ()
    start: int | None = None


def source_frame(tokenizer: Any) -> Frame:
    """The special tokens around a source."""
    return _frame(tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"])


def target_frame(tokenizer: Any) -> TargetFrame:
    """The special tokens of a target, from what the tokenizer makes of ``text_target``.

    A BOS without an EOS at the end (Gemma) is the start token of the decoder, and so not a label.

    Raises:
        UserError: More than one id would have to be forced.
    """
    before, after = _frame(
        tokenizer(text_target="a")["input_ids"], tokenizer(text_target="a", add_special_tokens=False)["input_ids"]
    )
    if len(before) > 1:
        tokens = tokenizer.convert_ids_to_tokens(list(before))
        raise UserError(f"model: its labels begin with {tokens}, but generation can force one token only")
    if len(after) > 1 and after[0] == tokenizer.eos_token_id:
        return TargetFrame(start=after[-1])
    return TargetFrame(forced=before if after else ())


def _frame(framed: Sequence[int], bare: Sequence[int]) -> Frame:
    for start in range(len(framed) - len(bare) + 1):
        if list(framed[start : start + len(bare)]) == list(bare):
            return Frame(tuple(framed[:start]), tuple(framed[start + len(bare) :]))
    return Frame()
