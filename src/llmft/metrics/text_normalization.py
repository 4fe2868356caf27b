"""Text -> the words and the normal form that metrics compare, in any script."""

import string
import unicodedata
from functools import cache
from typing import Any

import regex

# Han and kana are written without spaces: each character is a word.
ONE_CHARACTER = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
WORD = regex.compile(rf"{ONE_CHARACTER}|(?:(?!{ONE_CHARACTER})[\p{{L}}\p{{M}}\p{{N}}])+")
PUNCTUATION = regex.compile(rf"[\p{{P}}{regex.escape(string.punctuation)}]")
SPACED = regex.compile(rf"({ONE_CHARACTER})")
ARTICLES = {"a", "an", "the"}
LIST_MARKS = regex.compile(r"[,;\n、，；،]")


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits, lower case; Han and kana one by one."""
    return WORD.findall(text.lower())


def normal_tokens(text: str) -> list[str]:
    """Tokens as SQuAD compares them: case, punctuation and English articles away, then split at spaces (and Han or kana)."""
    text = PUNCTUATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    return [token for token in SPACED.sub(r" \1 ", text).split() if token not in ARTICLES]


def normal(text: str) -> str:
    """The normal form of a text; text of nothing but punctuation stays as it is, so that ``+`` is not ``-``."""
    return " ".join(normal_tokens(text)) or text.strip()


def keywords(text: str) -> set[str]:
    """The items of a list written with commas, semicolons or newlines, in normal form."""
    return {item for item in map(normal, LIST_MARKS.split(text)) if item}


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


class RougeTokenizer:
    """rouge-score's own tokens for English; words in other scripts instead of nothing.

    rouge-score's default drops every character but a-z and 0-9, so that two equal Russian texts score 0.
    """

    def tokenize(self, text: str) -> list[str]:
        """Words; those of a-z and 0-9 and more than three characters stemmed (Porter), as rouge-score does."""
        return [_stemmer().stem(word) if len(word) > 3 and word.isascii() else word for word in words(text)]
