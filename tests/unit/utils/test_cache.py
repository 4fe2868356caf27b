"""A cached folder is complete or absent."""

import fcntl

from llmft.utils.cache import cached_folder


def test_half_a_cached_folder_goes_with_the_next_that_fills_it(tmp_path):
    (tmp_path / "rows-1.tmp").mkdir()
    (tmp_path / "rows-12.tmp").mkdir()
    made = cached_folder("rows-1", lambda folder: (folder / "x").touch(), tmp_path)
    assert (made / "x").exists()
    assert {path.name for path in tmp_path.iterdir()} - {"rows-1.lock"} == {"rows-1", "rows-12.tmp"}
    with (tmp_path / "rows-1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
