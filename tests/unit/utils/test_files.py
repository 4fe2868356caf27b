"""Files are written atomically, and read up to their last complete line."""

import resource
import signal

import pytest

from llmft.utils import files


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
