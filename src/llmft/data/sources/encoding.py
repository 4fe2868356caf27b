"""The encoding of a text file: that of ``data.encoding``, or what its bytes show. Every file is read as lines of UTF-8."""

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.data.sources.decompress import opened
from llmft.data.sources.file_format import FileFormat
from llmft.utils.errors import UserError
from llmft.utils.text import printable

HEAD, CHUNK = 4096, 2**16
WESTERN = "cp1252"
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Bytes that are no text stand as these characters in a decoded line; no file has them, UTF-8 forbids them.
BAD = re.compile("[\udc00-\udcff]")
# Signs that letters of other encodings become: in a word (an apostrophe and a dash may be there), or a small digit before one.
LETTER = r"[^\W\d_]"
SIGN_IN_WORD = re.compile(
    rf"(?<={LETTER})[^\w\s\x00-\x7f\u2018\u2019\u00b7\u2013\u2014](?={LETTER})|(?<!\d)[\xb2\xb3\xb9](?={LETTER})"
)
# Turkish letters become those of Icelandic, which has accents too.
ICELANDIC, ACCENTS = (
    re.compile("[\xd0\xdd\xde\xf0\xfd\xfe]"),
    re.compile("[\xc1\xc9\xcd\xd3\xda\xe1\xe9\xed\xf3\xfa\xe6]"),
)


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("llmft-marked", _marked)


@dataclass(frozen=True)
class Encoding:
    """How the lines of a file become text.

    Attributes:
        name: The encoding of the file.
        of_lines: That of its lines as they are read: UTF-8, unless the line itself is decoded.
        errors: The handler that turns bytes that are no text into ``BAD``.
        hint: What to do about such bytes.
    """

    name: str = "utf-8"
    of_lines: str = "utf-8"
    errors: str = "surrogateescape"
    hint: str = "save the file as UTF-8"

    def decoded(self, raw: bytes) -> str:
        """The text of a line, with ``BAD`` in the place of bytes that are no text."""
        return raw.decode(self.of_lines, self.errors)

    def fault(self, text: str) -> str | None:
        """Why a decoded text is refused; None if all of it is text."""
        found = None if text.isascii() else BAD.search(text)
        name = self.name.upper() if self.name.startswith("utf") else self.name
        return found and f"not {name} (byte 0x{ord(found.group()) - 0xDC00:02x}); {self.hint}"


@contextmanager
def opened_text(given: str, file: Path, layout: FileFormat) -> Iterator[tuple[Any, Encoding]]:
    """Open a text file as a binary stream of UTF-8, whatever its encoding is.

    Raises:
        UserError: ``data.encoding`` is not that of the file (raised while reading, if its beginning does not show that).
        OSError, EOFError, zlib.error, pyarrow.ArrowException: It cannot be read.
    """
    with opened(file) as stream:
        head = stream.peek(HEAD)[:HEAD]
        found = unicode_encoding(head)
        if layout.encoding is not None:
            _check_pinned(given, head, found, layout)
        elif found:
            layout.told(f"{given}: is {found[:6].upper()}", "encoding", found)
        name = codecs.lookup(layout.encoding or found or "utf-8").name
        if name in ("utf-8", "utf-8-sig"):
            yield stream, Encoding(hint=_hint(layout))
            return
        recoded = io.BufferedReader(Recoded(given, stream, name, layout), CHUNK)
        yield recoded, Encoding(name, errors="surrogatepass", hint=_hint(layout, name))


def unicode_encoding(head: bytes) -> str | None:
    """The encoding of a text whose characters have two or four bytes, by its mark or its zero bytes; None for others."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)  # the zero bytes of ASCII characters, which every table has
    if 50 * (even + odd) < len(head):
        return None
    name, zeros, others = ("utf-16-le", odd, even) if odd > even else ("utf-16-be", even, odd)
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return None
    return name if zeros and 10 * others <= zeros and "\0" not in text else None


class Recoded(io.RawIOBase):
    """A stream of another encoding as UTF-8; bytes that are no text become ``BAD``.

    Raises:
        UserError: The stream is UTF-8 although another encoding is pinned (while reading, at the first other character).
    """

    def __init__(self, given: str, stream: Any, encoding: str, layout: FileFormat) -> None:
        super().__init__()
        self.given, self.stream, self.layout = given, stream, layout
        self.decoder = codecs.getincrementaldecoder(encoding)("llmft-marked")
        self.ascii, self.line = layout.encoding is not None and not encoding.startswith("utf"), 1
        self.rest = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end."""
        while not self.rest:
            data = self.stream.read(CHUNK)
            if self.ascii:
                self._check(data)
            self.rest = memoryview(self.decoder.decode(data, final=not data).encode("utf-8", "surrogatepass"))
            if not data:
                break
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count

    def _check(self, data: bytes) -> None:
        """Refuse UTF-8, which an encoding of one byte a character would garble without an error."""
        self.ascii = data.isascii()
        if self.ascii:
            self.line += data.count(b"\n")
            return
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(data)
        except UnicodeDecodeError:
            return
        if other := re.search(r"[^\x00-\x7f]", text):
            line, shown = self.line + text.count("\n", 0, other.start()), other.group().encode("utf-8").hex(" ")
            raise UserError(
                f"{self.given}:{line}: the file is UTF-8 (bytes {shown}), but {self.layout.keys}.encoding is "
                f"{self.layout.encoding}; {self.layout.keys}.encoding=null"
            )


def _check_pinned(given: str, head: bytes, found: str | None, layout: FileFormat) -> None:
    """Refuse UTF-16 that is pinned for another text, and the reverse, by the first bytes."""
    name = codecs.lookup(layout.encoding or "").name
    wide = name.startswith(("utf-16", "utf-32"))
    if (found and found not in (name, f"{name}-le", f"{name}-be")) or (wide and head and not found):
        is_ = found.upper() if found else "not " + name.upper()
        raise UserError(
            f"{given}:1: the file is {is_} (first bytes {head[:4].hex(' ')}), but {layout.keys}.encoding is "
            f"{layout.encoding}; {layout.keys}.encoding=null"
        )


def _hint(layout: FileFormat, pinned: str = "") -> str:
    if not layout.keys:
        return "save the file as UTF-8"
    if pinned:
        return f"{layout.keys}.encoding is another, or null for what the file shows"
    return f"save the file as UTF-8, or name its encoding, such as {layout.keys}.encoding={WESTERN}"


def encoding_of_table(given: str, line: int, lines: Sequence[bytes], layout: FileFormat) -> Encoding:
    """The encoding of a table that was ASCII so far: UTF-8, or Western European if that reads well.

    Args:
        given: The file.
        line: The number of the first of these lines.
        lines: The first one that is not ASCII, and some that follow.
        layout: Is told if the table is not UTF-8.
    """
    others = [raw for raw in lines if not raw.isascii()]
    if 2 * sum(map(_is_utf8, others)) >= len(others):
        return Encoding(hint=_hint(layout))  # the rest are damaged rows
    western = Encoding(WESTERN, WESTERN, "llmft-marked", _hint(layout, WESTERN))
    text = western.decoded(b"".join(others))
    if reads_well(text):
        layout.told(f"{given}: is Western European, not UTF-8: line {line} has {_excerpt(text)}", "encoding", WESTERN)
        return western
    return Encoding(hint=_suggestion(b"".join(others), layout) or _hint(layout))


def reads_well(text: str) -> bool:
    """Whether a text that was decoded as Western European may be such: few of its letters are not ASCII, no sign is in a word."""
    others = [character for character in text if not character.isascii()]
    letters, foreign = sum(map(str.isalpha, text)), sum(map(str.isalpha, others))
    if BAD.search(text) or (ICELANDIC.search(text) and not ACCENTS.search(text)):
        return False
    return 10 * foreign <= 4 * letters and 10 * len(SIGN_IN_WORD.findall(text)) <= len(others)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _suggestion(data: bytes, layout: FileFormat) -> str:
    """The likeliest encoding of bytes that are neither UTF-8 nor Western European, with some of the text that it gives."""
    from charset_normalizer import from_bytes

    best = from_bytes(data[:CHUNK]).best() if layout.keys else None
    if best is None or best.encoding.startswith("utf"):
        return ""
    return f"it may be {best.encoding}, {_excerpt(str(best))}: {layout.key('encoding', best.encoding)}"


def _excerpt(text: str) -> str:
    """Some characters around the first one that is not ASCII."""
    found = re.search(r"[^\n]{0,15}[^\x00-\x7f][^\n]{0,15}", text)
    return f'"{printable(found.group().strip()) if found else ""}"'
