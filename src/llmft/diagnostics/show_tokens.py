"""Tokens as coloured text, with what is trained."""

from itertools import groupby

from rich.text import Text

from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample
from llmft.utils.text import printable

TRAINED = "bold green"


def segments(row: EncodedExample) -> list[tuple[bool, list[int]]]:
    """The row's ids in runs that are trained or not (seq2seq: the source, then the target)."""
    if not row.joined:
        return [(False, row.input_ids), (True, row.labels)]
    return runs(row.input_ids, row.labels)


def runs(ids: list[int], labels: list[int]) -> list[tuple[bool, list[int]]]:
    """Ids in runs that are trained or not, by the labels beside them."""
    beside = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    return [(trained, [token for token, _ in pairs]) for trained, pairs in beside]


def shown(parts: list[tuple[bool, list[int]]], codec: Codec) -> Text:
    """Runs of ids as text: what is given dim, what is trained bright and in brackets."""
    text = Text()
    for trained, ids in parts:
        decoded = printable(codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        text.append(f"⟦{decoded}⟧" if trained else decoded, TRAINED if trained else "dim")
    return text
