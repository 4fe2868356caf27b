"""Word-level diff of two answers."""

import difflib
import re

from llmft.utils.text import printable

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
# difflib takes quadratic time; words beyond this are not compared.
MAX_WORDS = 600
Piece = tuple[str, bool]


def diff_words(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Split both texts into pieces, each with whether the other text lacks it; joined, the pieces are the text."""
    left, right = printable(left), printable(right)
    a, b = WORDS.findall(left), WORDS.findall(right)
    rest = "".join(a[MAX_WORDS:]), "".join(b[MAX_WORDS:])
    a, b = a[:MAX_WORDS], b[:MAX_WORDS]
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for side, text in ((0, "".join(a[i:j])), (1, "".join(b[k:m]))):
            if text:
                pieces[side].append((text, kind != "equal" and not text.isspace()))
    for side in (0, 1):
        if rest[side]:
            pieces[side].append((rest[side], False))
    return pieces
