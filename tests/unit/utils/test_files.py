"""Files that are whole or not there, a folder that one process has, and what a killed one leaves."""

import errno
import fcntl
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from llmft.data.preprocessing.cache import Temporary
from llmft.utils import files
from llmft.utils.cache import cached_folder
from llmft.utils.distributed import follow
from llmft.utils.errors import UserError, chain
from llmft.utils.lock import NAME, DirectoryLock, is_claimed
from llmft.utils.logging import KeptLog


def forked(work) -> int:
    """Run ``work`` in a fork and wait until it has printed a byte."""
    ready, tell = os.pipe()
    if pid := os.fork():
        os.close(tell)
        assert os.read(ready, 1) == b"."
        os.close(ready)
        return pid
    try:
        kept = work()  # noqa: F841 (held until the end)
        os.write(tell, b".")
        time.sleep(600)  # it is killed before
    finally:
        os._exit(1)


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_file_that_finds_no_room_stays_as_it_was(tmp_path):
    file = tmp_path / "run.json"
    files.write(file, "old\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            files.write(file, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.filename == str(file)
    assert file.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_torn_last_line_is_no_line(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n1")
    assert files.lines_of(tmp_path / "metrics.csv") == ["step,loss", "1,2"]
    assert files.lines_of(tmp_path / "none") == []


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


def test_temporary_folders_of_killed_processes_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pid = forked(Temporary)
    theirs = set(tmp_path.iterdir())
    ours = Temporary()
    assert theirs < set(tmp_path.iterdir())
    killed(pid)
    again = Temporary()
    assert set(tmp_path.iterdir()) == {Path(ours.name), Path(again.name)}
    ours.cleanup()
    again.cleanup()
    assert not list(tmp_path.iterdir())


def test_half_a_cached_folder_goes_with_the_next_that_fills_it(tmp_path):
    (tmp_path / "rows-1.tmp-abc").mkdir()
    (tmp_path / "rows-12.tmp-abc").mkdir()
    made = cached_folder("rows-1", lambda folder: (folder / "x").touch(), tmp_path)
    assert (made / "x").exists()
    assert {path.name for path in tmp_path.iterdir()} - {"rows-1.lock"} == {"rows-1", "rows-12.tmp-abc"}
    with (tmp_path / "rows-1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_log_that_cannot_be_written_says_so_once(capfd, monkeypatch):
    handler = KeptLog("/dev/full")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    for _ in range(3):
        root.error("a line")
    handler.stream = None
    err = capfd.readouterr().err
    assert err.count("/dev/full: nothing more is written to it (No space left on device)") == 1
    assert "Traceback" not in err


def test_an_error_that_causes_itself_is_looked_through_once():
    one, other = OSError(errno.ENOSPC, "full"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert list(chain(one)) == [one, other]


def test_a_process_whose_starter_is_gone_is_told():
    told = []
    follow(os.getppid() + 1, lambda: told.append(1))
    give_up = time.monotonic() + 60
    while not told and time.monotonic() < give_up:
        time.sleep(0.01)
    assert told
    assert sys.is_finalizing() is False
