"""Two answers -> their words, each marked where the other does not have it."""

import difflib
import re

from llmft.utils.text import printable

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
# difflib takes quadratic time; what lies beyond is shown without marks.
COMPARED = 600
Piece = tuple[str, bool]


def marked(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Pieces of both texts, with whether a piece is in this one alone; joined they are the texts again."""
    left, right = printable(left), printable(right)
    a, b = WORDS.findall(left), WORDS.findall(right)
    rest = "".join(a[COMPARED:]), "".join(b[COMPARED:])
    a, b = a[:COMPARED], b[:COMPARED]
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for side, text in ((0, "".join(a[i:j])), (1, "".join(b[k:m]))):
            if text:
                pieces[side].append((text, kind != "equal" and not text.isspace()))
    for side in (0, 1):
        if rest[side]:
            pieces[side].append((rest[side], False))
    return pieces
