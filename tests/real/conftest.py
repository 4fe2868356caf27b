"""Tests on a real pretrained model: SmolLM2-135M-Instruct, as `make run` fetches it into the cache folder."""

import os

import pytest

from llmft.utils.cache import cache_root
from tests import conftest


@pytest.fixture(autouse=True)
def smollm2(monkeypatch):
    """The user's own cache, where the model is; skips where it is not."""
    if conftest.USERS_CACHE:
        monkeypatch.setenv("LLMFT_CACHE", conftest.USERS_CACHE)
    else:
        monkeypatch.delenv("LLMFT_CACHE")
    if not list(cache_root().glob("SmolLM2-135M-Instruct.Q4_1-*")):
        pytest.skip(f"SmolLM2 is not in {cache_root()}: `make run` fetches it")
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.cpu_count()))
