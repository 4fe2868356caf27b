"""Chains of exceptions."""

import errno

from llmft.utils.errors import chain


def test_an_error_that_causes_itself_is_looked_through_once():
    one, other = OSError(errno.ENOSPC, "full"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert list(chain(one)) == [one, other]
