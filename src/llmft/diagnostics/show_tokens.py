"""Render token ids as colored text, with the supervised tokens highlighted."""

from collections.abc import Iterable
from itertools import groupby

from rich.text import Text

from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample
from llmft.utils.text import printable

TRAINED = "bold green"
STYLES = {"reasoning": "bold magenta", "answer": TRAINED, "call": "bold blue", "stop": "bold red"}


def trained_spans(row: EncodedExample) -> list[tuple[bool, list[int]]]:
    """Split an example's ids into spans with whether they are supervised (seq2seq: the source, then the target)."""
    if not row.joined:
        return [(False, row.input_ids), (True, row.labels)]
    return label_spans(row.input_ids, row.labels)


def label_spans(ids: list[int], labels: list[int]) -> list[tuple[bool, list[int]]]:
    """Split ids into spans with whether their labels are supervised."""
    spans = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    return [(trained, [token for token, _ in pairs]) for trained, pairs in spans]


def render_spans(parts: list[tuple[bool, list[int]]], codec: Codec) -> Text:
    """Render spans as text: supervised tokens bright and in brackets, others dim."""
    text = Text()
    for trained, ids in parts:
        decoded = printable(codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        text.append(f"⟦{decoded}⟧" if trained else decoded, TRAINED if trained else "dim")
    return text


def render_kinds(spans: Iterable[tuple[str, list[int]]], codec: Codec) -> Text:
    """Render spans of ``token_kinds``, each kind in its color; supervised tokens in brackets."""
    text = Text()
    supervised = False
    for kind, ids in spans:
        decoded = printable(codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        if (kind != "prompt") != supervised:
            text.append("⟧" if supervised else "⟦", TRAINED)
            supervised = not supervised
        text.append(decoded, STYLES.get(kind, "dim"))
    return text.append("⟧" if supervised else "", TRAINED)
