"""Chains of exceptions."""

import errno

from llmft.utils.errors import UserError, as_os_error, chain


def test_an_error_that_causes_itself_is_looked_through_once():
    one, other = OSError(errno.ENOSPC, "full"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert list(chain(one)) == [one, other]


def test_an_error_of_the_system_in_an_exception_of_a_library():
    """As tokenizers and safetensors raise it when the disk is full."""
    found = as_os_error(Exception("No space left on device (os error 28)"))
    assert found is not None
    assert (found.errno, found.strerror) == (errno.ENOSPC, "No space left on device")
    assert as_os_error(error := OSError(errno.EIO, "broken")) is error
    assert as_os_error(ValueError("28")) is None


def test_a_notebook_shows_the_message_without_frames():
    assert UserError("optim.lr=x: not a number")._render_traceback_() == ["UserError: optim.lr=x: not a number"]
