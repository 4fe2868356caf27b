"""The lock of a run directory: held by one process, and released when that process is killed."""

import os
import time

import pytest

from llmft.utils.errors import UserError
from llmft.utils.lock import NAME, DirectoryLock, is_claimed
from tests.support.forks import forked, killed


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path):
    pid = forked(lambda: DirectoryLock(tmp_path))
    try:
        assert is_claimed(tmp_path)
        with pytest.raises(UserError, match=rf"another process is writing there \(process {pid} on .* since .* UTC\)"):
            DirectoryLock(tmp_path)
    finally:
        killed(pid)
    assert (tmp_path / NAME).exists()
    assert not is_claimed(tmp_path)
    claim = DirectoryLock(tmp_path)
    with pytest.raises(UserError, match="a training of this process"):
        DirectoryLock(tmp_path)
    assert not is_claimed(tmp_path)  # looking at it does not give it up
    pid = forked(lambda: is_claimed(tmp_path) or os._exit(3))
    killed(pid)
    claim.release()
    assert not list(tmp_path.iterdir())


def test_a_worker_that_outlives_its_run_holds_nothing(tmp_path):
    """A loader worker looks for its parent every few seconds only; a resumed run need not wait for that."""

    def with_a_worker():
        claim = DirectoryLock(tmp_path)
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        return claim

    killed(forked(with_a_worker))
    DirectoryLock(tmp_path).release()
