"""``python -m llmft``: the first word is the command; --help and --cfg need no torch."""

import subprocess
import sys
import time

import pytest

from llmft.__main__ import split_command
from llmft.utils.errors import UserError


def test_the_first_word_is_the_command():
    assert split_command([]) == ("train", [])
    assert split_command(["model=x"]) == ("train", ["model=x"])
    assert split_command(["--help"]) == ("train", ["--help"])
    assert split_command(["preview", "data=x"]) == ("preview", ["data=x"])
    with pytest.raises(UserError, match=r"trian: no such command. Did you mean train\?"):
        split_command(["trian"])


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["preview", "--help"], ["answer", "--cfg", "job"]])
def test_help_and_cfg_answer_without_torch(arguments, tmp_path):
    start = time.perf_counter()
    code = "import sys, llmft.__main__ as m; sys.argv[0] = 'llmft'; code = m.run(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "model" in done.stdout
    print(f"{arguments}: {time.perf_counter() - start:.2f} s")
