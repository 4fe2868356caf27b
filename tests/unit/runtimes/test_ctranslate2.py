"""Calls of CTranslate2: what its threads keep, and what an exception in a callback does."""

import gc
import weakref
from types import SimpleNamespace

import pytest

from llmft.runtimes.ctranslate2 import CTranslate2Runtime


class Engine:
    """Decodes one token, and keeps the callback, as a thread of CTranslate2 does for a moment."""

    def generate_batch(self, prompts, *, callback, **_):
        assert prompts == [["b", "a"]]
        self.callback = callback
        callback(SimpleNamespace(batch_id=0, step=0, token_id=1, logits=None, is_last=True))


@pytest.fixture
def runtime():
    made = object.__new__(CTranslate2Runtime)
    made.engine, made.is_encoder_decoder, made.vocabulary = Engine(), False, ["a", "b"]
    made.stop_ids, made.config, made.name = frozenset({1}), {}, "CTranslate2"
    return made


def test_a_thread_that_ends_later_does_not_free_the_engine(runtime):
    class Owner:
        taken = ()

        def take(self, row, token, logits):
            self.taken += ((row, token, logits),)
            return False

    owner = Owner()
    runtime.continued([[1]], [[0]], 8, owner.take)
    assert owner.taken == ((0, 1, None),)
    kept = weakref.ref(owner)
    del owner
    gc.collect()
    assert runtime.engine.callback  # the thread's
    assert kept() is None


def test_an_exception_of_a_callback_is_raised_by_the_call(runtime):
    def take(*_):
        raise ValueError("a fault of the caller")

    with pytest.raises(ValueError, match="a fault of the caller"):
        runtime.continued([[1]], [[0]], 8, take)
