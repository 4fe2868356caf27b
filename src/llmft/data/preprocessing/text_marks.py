"""What in the texts of an example hints at a damaged export: unfilled placeholders, HTML in the answer, and how it begins."""

import re
from collections.abc import Iterable

from llmft.data.records import Example

# Code, where braces and tags are what was meant.
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
LOOKS_LIKE_CODE = re.compile(r"""\bdef \w|\bconst \w|\bfunction\b|print\(|\.format\(|[fF]["']|=>|\$\{|\\[a-z]+\{""")
DOUBLE = re.compile(r"\{\{\s*[^\W\d][\w .-]{0,40}?\s*\}\}|\[INSERT\b[^\]\n]{0,60}\]", re.IGNORECASE)
# In single braces only names that a template fills in; {n} and {x} are formulas.
NAMES = "name|first_?name|last_?name|full_?name|user_?name|user|customer(?:_name)?|client(?:_name)?|company(?:_name)?"
NAMES += "|product(?:_name)?|brand|model_name|agent(?:_name)?|author|date|email|phone|address|city|country|url|link"
NAMES += "|order_(?:id|number)|ticket_(?:id|number)|account_number|amount|price|title|topic|question|answer|context"
NAMES += "|instruction|input|output|response|language"
SINGLE = re.compile(rf"(?<![{{\w$\\])\{{(?:{NAMES})\}}(?!\}})", re.IGNORECASE)
# Tags and entities of text that was copied from a web page.
TAGS = "p|br|div|span|a|b|i|u|em|strong|ul|ol|li|h[1-6]|table|tr|td|th|img|font|script|style|html|body|hr|blockquote"
HTML = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>|&(?:nbsp|amp|lt|gt|quot|#\d+);", re.IGNORECASE)
ASKED = re.compile(r"html|css|\bxml\b|markup|web ?page|website|</?\w+>", re.IGNORECASE)
OPENING = 3  # words of an answer by which its beginning is known
STRUCTURED = ("{", "[", "<", "```", "|")


def placeholder_in(texts: Iterable[str]) -> str:
    """The first placeholder that nobody filled in, such as ``{{name}}``; empty if there is none."""
    for text in texts:
        if "{" not in text and "[" not in text:
            continue
        plain = CODE.sub("", text)
        found = DOUBLE.search(plain) or (None if LOOKS_LIKE_CODE.search(plain) else SINGLE.search(plain))
        if found:
            return found[0]
    return ""


def html_in(example: Example) -> str:
    """The first HTML tag or entity in the answer outside code; empty if there is none, or if the prompt is about HTML."""
    if "<" not in example.answer and "&" not in example.answer:
        return ""
    found = HTML.search(CODE.sub("", example.answer))
    if not found or any(ASKED.search(turn.content) or ASKED.search(turn.input) for turn in example.context):
        return ""
    return found[0]


def opening_of(answer: str, words: list[str]) -> str:
    """The first words of an answer; empty for a label and for structured text such as JSON, which begin alike by design.

    Args:
        answer: The answer.
        words: Its first words, one more than ``OPENING``, normalized.
    """
    if len(words) <= OPENING or answer.lstrip().startswith(STRUCTURED):
        return ""
    return " ".join(words[:OPENING])


def of_own_design(answer: str, words: int) -> bool:
    """Whether an answer is a label or structured text, which many prompts share by design."""
    return len(answer.split()) < words or answer.lstrip().startswith(STRUCTURED)
