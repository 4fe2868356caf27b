"""Word splitting and SQuAD-style normalization for metrics, for any script."""

import string
import unicodedata
from functools import cache
from typing import Any

import regex

# Han and kana are written without spaces, so each character counts as a word.
ONE_CHARACTER = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
WORD = regex.compile(rf"{ONE_CHARACTER}|(?:(?!{ONE_CHARACTER})[\p{{L}}\p{{M}}\p{{N}}])+")
PUNCTUATION = regex.compile(rf"[\p{{P}}{regex.escape(string.punctuation)}]")
SPACED = regex.compile(rf"({ONE_CHARACTER})")
ARTICLES = {"a", "an", "the"}
LIST_MARKS = regex.compile(r"[,;\n、，；،]")


def words(text: str) -> list[str]:
    """Lowercase runs of letters, marks and digits; each Han or kana character is a word."""
    return WORD.findall(text.lower())


def normalized_tokens(text: str) -> list[str]:
    """SQuAD tokens: case, punctuation and English articles removed, then split at spaces (and around Han or kana)."""
    text = PUNCTUATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    return [token for token in SPACED.sub(r" \1 ", text).split() if token not in ARTICLES]


def normalize(text: str) -> str:
    """SQuAD-style normal form; text with nothing but punctuation is kept, so that ``+`` does not equal ``-``."""
    return " ".join(normalized_tokens(text)) or text.strip()


def keywords(text: str) -> set[str]:
    """Normalized items of a list separated by commas, semicolons or newlines."""
    return {item for item in map(normalize, LIST_MARKS.split(text)) if item}


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


class RougeTokenizer:
    """Tokenizer for rouge-score: its own tokens for English, and words of other scripts too.

    rouge-score's default drops all characters but a-z and 0-9, so that two equal Russian texts score 0.
    """

    def tokenize(self, text: str) -> list[str]:
        """Split into words; ASCII words of more than three characters are stemmed (Porter), as in rouge-score."""
        return [_stemmer().stem(word) if len(word) > 3 and word.isascii() else word for word in words(text)]
