"""Temporary folders go with their process, or with the next one."""

from pathlib import Path

from llmft.utils.temporary import TemporaryFolder
from tests.support.forks import forked, killed


def test_temporary_folders_of_killed_processes_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pid = forked(TemporaryFolder)
    theirs = set(tmp_path.iterdir())
    ours = TemporaryFolder()
    assert theirs < set(tmp_path.iterdir())
    killed(pid)
    again = TemporaryFolder()
    assert set(tmp_path.iterdir()) == {Path(ours.name), Path(again.name)}
    ours.cleanup()
    again.cleanup()
    assert not list(tmp_path.iterdir())
