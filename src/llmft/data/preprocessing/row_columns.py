"""Numbers about an encoded row: lengths, and hashes of its prompt and its answer, by which equal rows are found."""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Any

from llmft.data.preprocessing.text_marks import OPENING, html_in, opening_of, placeholder_in
from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import EncodedExample

# Control characters except line ends and tabs, invisible ones (not those that join letters), private use, U+FFFD.
ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd\ue000-\uf8ff]"
)

# A letter of a script without spaces between words (Japanese, Chinese, Thai, Lao) is a word of its own.
UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")


def identity(context: Sequence[Turn], tools: Sequence[str]) -> str:
    """The texts of a prompt, in one: prompts are equal if these are."""
    return "\0".join((*("\2".join((f"{turn.role}\1{turn.content}", *turn.texts()[1:])) for turn in context), *tools))


def row_columns(example: Example, row: EncodedExample) -> dict[str, Any]:
    """The columns of an encoded example, but those that only its batch knows."""
    prompt = identity(example.context, example.tools)
    texts, reply = tuple(example.texts()), example.reply.texts()
    answer, characters = "\2".join(reply), sum(map(len, reply))
    answer_like = normalized(answer)
    exact, alike = hash_of(prompt), hash_of(normalized(prompt))
    return {
        "ids": len(row.input_ids),
        "labels": 0 if row.joined else len(row.labels),
        "answer_tokens": row.answer_length,
        "prompt_characters": sum(map(len, texts)) - characters,
        "answer_characters": characters,
        "source": source_hash(example.source),
        "prompt": exact,
        "prompt_like": alike,
        "row": hash_of(f"{exact}\0{answer}"),
        "row_like": hash_of(f"{alike}\0{answer_like}"),
        "answer": hash_of(answer_like),
        "opening": _opening_hash(answer, answer_like),
        "placeholder": bool(placeholder_in(texts)),
        "html": bool(html_in(example)),
        "odd": any(map(ODD.search, texts)),
        "lost": bool(row.lost),
    }


def _opening_hash(answer: str, normal: str) -> int:
    """Hash of the first words of an answer; 0 if it has no ``opening_of``."""
    words = [match[0] for match in islice(WORD.finditer(normal), OPENING + 1)]
    opening = opening_of(answer, words)
    return hash_of(opening) if opening else 0


def normalized(text: str) -> str:
    """A text without differences of case, width and white space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())


@functools.lru_cache(4)  # every row needs the name of its set
def source_hash(name: str) -> int:
    """As ``hash_of``."""
    return hash_of(name)


def hash_of(text: str) -> int:
    """A 64-bit hash: among 4 million texts the chance of a collision is 1 in 2 million."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
