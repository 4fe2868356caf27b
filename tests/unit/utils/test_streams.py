"""Standard streams that are closed, full, or without a reader."""

import io
import json
import os
import subprocess
import sys

import pytest

from llmft.utils.errors import UserError
from llmft.utils.streams import ESCAPES, Guarded, optional_output


class Failing(io.StringIO):
    """Fails at each write with an error, until its file descriptor is another one."""

    def __init__(self, error):
        super().__init__()
        self.error, self.file = error, os.open(os.devnull, os.O_RDONLY)

    def fileno(self):
        return self.file

    def flush(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), SystemExit, "0"),
        (OSError(28, "No space left on device"), UserError, "standard output: cannot be written to (No space left on device)"),
    ],
)  # fmt: skip
def test_a_failed_write_ends_the_command(error, raised, said):
    with pytest.raises(raised) as found:
        Guarded(Failing(error)).flush()
    assert str(found.value) == said
    Guarded(Failing(error), optional=True).flush()


def test_what_files_hold_need_not_be_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Guarded(Failing(BrokenPipeError(32, "Broken pipe"))))
    with optional_output():
        print("text")
        sys.stdout.flush()
    with pytest.raises(SystemExit):
        sys.stdout.flush()


def test_characters_that_the_terminal_lacks_are_valid_json():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=ESCAPES)
    out.write(json.dumps({"text": "é 😀"}, ensure_ascii=False))
    out.flush()
    written = out.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert written == rb'{"text": "\u00e9 \ud83d\ude00"}'
    assert json.loads(written) == {"text": "é 😀"}


SCRIPT = """
import os, sys
from llmft.utils.streams import guarded
with guarded():
    numbers = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
    opened = os.open(os.devnull, os.O_RDONLY)
    print("a line", file=sys.stderr)
assert numbers == [0, 1, 2] and opened > 2, (numbers, opened)
"""


def test_closed_streams_keep_their_numbers():
    """Otherwise the next file that is opened is number 1, and a library that prints writes into it."""
    command = f"exec {sys.executable} -c '{SCRIPT}' <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False).returncode == 0


def test_an_ascii_locale_is_left():
    """The arguments of a command are decoded again, so that a name with an umlaut is one."""
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = "import sys; from llmft.utils.streams import use_utf8; use_utf8(); print(ascii(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, "é"], env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "['\\xe9']\n"
