"""A cached folder is complete or absent."""

import fcntl
import os

import pytest

from llmft.utils.cache import cached_folder
from llmft.utils.errors import UserError
from llmft.utils.paths import ensure_home


def test_half_a_cached_folder_goes_with_the_next_that_fills_it(tmp_path):
    (tmp_path / "rows-1.tmp").mkdir()
    (tmp_path / "rows-12.tmp").mkdir()
    made = cached_folder("rows-1", lambda folder: (folder / "x").touch(), tmp_path)
    assert (made / "x").exists()
    assert {path.name for path in tmp_path.iterdir()} - {"rows-1.lock"} == {"rows-1", "rows-12.tmp"}
    with (tmp_path / "rows-1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_cache_that_cannot_be_made_names_the_variable(monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", "/dev/null/cache")
    with pytest.raises(
        UserError, match=r"/dev/null/cache: the cache cannot be made \(Not a directory\); set LLMFT_CACHE="
    ):
        cached_folder("rows-1", lambda _: None)


def test_a_home_is_named_where_there_is_none(monkeypatch):
    """A container's user without a name and without HOME; some libraries cannot be imported then."""
    monkeypatch.setenv("HOME", "/home/me")
    ensure_home()
    assert os.environ["HOME"] == "/home/me"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.environ.get("HOME", path))
    ensure_home()
    assert os.environ["HOME"] == "/dev/null"
