"""A whole training, its evaluation, export and report under strace: nothing that a power cut loses has a final name."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import chat_row, write_rows
from tests.robustness.faults.power_cut import STRACE, Disk
from tests.robustness.storm.world import TRAIN

GOOD = """
1 openat(AT_FDCWD</w>, "run/a.tmp", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</w/run/a.tmp>
1 write(3</w/run/a.tmp>, "text", 4) = 4
2 write(1</w/out>, "other", 5 <unfinished ...>
1 fsync(3</w/run/a.tmp>) = 0
2 <... write resumed>) = 5
1 rename("/w/run/a.tmp", "/w/run/a") = 0
1 fsync(4</w/run>) = 0
1 renameat2(AT_FDCWD</w>, "/w/run/m.tmp", AT_FDCWD</w>, "/w/run/m", RENAME_EXCHANGE) = 0
1 fsync(4</w/run>) = 0
1 unlinkat(5</w/run/m.tmp>, "weights", 0) = 0
""".strip().splitlines()


def without(*numbers: int) -> list[str]:
    return [line for number, line in enumerate(GOOD) if number not in numbers]


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        (GOOD, []),
        (without(3), ["/w/run/a.tmp: got the name /w/run/a before it was flushed"]),
        (without(6, 8, 9), ["the names in /w/run were not flushed"]),
        ([*without(8), GOOD[8]], ["/w/run/m.tmp/weights: was removed before its successor's name was flushed"]),
        ([line.replace("a.tmp", "a") for line in GOOD[:4]], ["/w/run/a: is overwritten in place"]),
        (without(4, 5), []),  # nothing of the other folder matters
    ],
)
def test_the_rules(trace, found):
    assert Disk(("/w/run",)).read(trace) == found


@pytest.mark.slow
def test_nothing_is_named_before_it_is_flushed(tmp_path):
    strace = shutil.which(STRACE[0])
    if strace is None or subprocess.run([*STRACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed, or not allowed")
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / "rows.jsonl", *(chat_row(f"Question {n}", f"Answer {n % 5}") for n in range(24)))
    places = ("out", "cache")
    for name in places:
        (tmp_path / name).mkdir()
    lines = (
        ((*TRAIN, "trainer.max_epochs=2", "output_dir=out/run"), 20),
        (("report", "run=out/run"), 10),
        (("export", "run=out/run", "to=out/exported"), 1),
        (("export", "run=out/run", "to=out/exported.zip", "form=adapter", "zip=true"), 1),
        (("restore", "archive=out/exported.zip", "to=out/restored"), 1),
    )
    for number, (line, named) in enumerate(lines):
        trace = tmp_path / f"trace{number}"
        command = [*STRACE, "-o", str(trace), sys.executable, "-m", "llmft", *line]
        done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        disk = Disk(tuple(str(tmp_path / name) for name in places), str(tmp_path))
        found = disk.read(trace.read_text(errors="replace").splitlines())
        assert disk.named >= named
        assert not found, f"{line}: " + "\n".join(found)
