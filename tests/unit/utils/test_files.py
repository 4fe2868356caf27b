"""Files are written atomically, and read up to their last complete line."""

import os
import resource
import signal

import pytest

from llmft.utils import files
from tests.support.forks import forked, killed


def test_a_file_that_finds_no_room_stays_as_it_was(tmp_path):
    file = tmp_path / "run.json"
    files.atomic_write(file, "old\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            files.atomic_write(file, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.filename == str(file)
    assert file.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_goes_with_the_next_that_writes_there(tmp_path):
    """An export writes next to its target, in a folder of the user's, which no run directory cleans."""

    target = tmp_path / "exported[1]"

    def begin():
        entered = files.atomic_folder(target, new=True)
        entered.__enter__()
        return entered

    gone, runs = forked(begin), forked(begin)
    killed(gone)
    try:
        with files.atomic_folder(target, new=True) as ours:
            assert {path.name.rpartition("-")[2] for path in tmp_path.iterdir()} == {
                f"{runs}.tmp",
                f"{os.getpid()}.tmp",
            }
            assert ours.name.endswith(f"-{os.getpid()}.tmp")
    finally:
        killed(runs)
    assert target.is_dir()


def test_a_tokenizer_that_finds_no_room_names_the_folder(tmp_path):
    def save():
        with files.atomic_folder(tmp_path / "model"):
            raise Exception("No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left on device") as raised:
        save()
    assert raised.value.filename == str(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_no_line(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n1")
    assert files.complete_lines(tmp_path / "metrics.csv") == ["step,loss", "1,2"]
    assert files.complete_lines(tmp_path / "none") == []
