"""Messages on the terminal."""

import errno
import os

from llmft.utils.console import complain


def test_an_error_of_the_system_names_the_place_and_the_reason(capsys):
    assert complain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/run.json")) == 2
    assert capsys.readouterr().err == "llmft: out/run.json: No space left on device\n"
    assert complain(OSError("no reason")) == 2
    assert capsys.readouterr().err == "llmft: no reason\n"
