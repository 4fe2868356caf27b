"""Word-level comparison of an answer with its reference."""

import difflib
from typing import NamedTuple

import regex

from llmft.metrics.text_normalization import ONE_CHARACTER
from llmft.utils.text import printable

# Decimal numbers are one word; Han and kana have no spaces, so each character is a word.
WORDS = regex.compile(
    rf"(\s*)({ONE_CHARACTER}|\p{{N}}+(?:[.,]\p{{N}}+)+|(?:(?!{ONE_CHARACTER})[\p{{L}}\p{{M}}\p{{N}}_])+|\S)"
)
IS_WORD = regex.compile(r"[\p{L}\p{N}]")
# difflib takes quadratic time; words beyond this are not compared.
MAX_WORDS = 600
Piece = tuple[str, bool]


class Marked(NamedTuple):
    """A text in pieces, each with whether the other text lacks it; and the number of such words."""

    pieces: list[Piece]
    words: int


def compare(reference: str, answer: str) -> tuple[Marked, Marked]:
    """Align the words of two texts, without regard to case.

    Returns:
        The reference, with the words that the answer lacks; the answer, with the words that the reference lacks. Joined, the
        pieces are the text.
    """
    sides = [WORDS.findall(printable(text)) for text in (reference, answer)]
    keys = [[word.casefold() for _, word in side[:MAX_WORDS]] for side in sides]
    marks = [set[int](), set[int]()]
    for kind, i, j, k, m in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if kind != "equal":
            marks[0].update(range(i, j))
            marks[1].update(range(k, m))
    left, right = (
        _marked(side, marked, printable(text))
        for side, marked, text in zip(sides, marks, (reference, answer), strict=True)
    )
    return left, right


def _marked(side: list[tuple[str, str]], marked: set[int], text: str) -> Marked:
    """Join neighbors of one kind; the space between two marked words is marked with them."""
    pieces: list[Piece] = []
    for number, (space, word) in enumerate(side):
        mark = number in marked
        _add(pieces, space, marked=mark and bool(pieces) and pieces[-1][1])
        _add(pieces, word, marked=mark)
    _add(pieces, text[sum(len(piece) for piece, _ in pieces) :], marked=False)
    return Marked(pieces, sum(IS_WORD.search(side[number][1]) is not None for number in marked))


def _add(pieces: list[Piece], text: str, *, marked: bool) -> None:
    if text and pieces and pieces[-1][1] == marked:
        pieces[-1] = (pieces[-1][0] + text, marked)
    elif text:
        pieces.append((text, marked))
