"""The CPU image, built and run, where there is a builder and the base image can be had."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_rows
from tests.support.dockerfile import stages

pytestmark = pytest.mark.slow
NAME = "llmft-test:cpu"


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def image():
    """The builder's command, after it has built the image."""
    builder = next(
        (name for name in ("docker", "podman") if shutil.which(name) and not call(name, "info").returncode), ""
    )
    if not builder:
        pytest.skip("neither Docker nor Podman runs here")
    base = stages()["base"].source.replace("${PYTHON}", "3.11")
    if call(builder, "image", "inspect", base).returncode and (pulled := call(builder, "pull", base)).returncode:
        pytest.skip(f"{base} cannot be had: {pulled.stderr.strip().splitlines()[-1]}")
    built = call(builder, "build", "--target", "cpu", "-t", NAME, ".")
    assert built.returncode == 0, built.stderr[-3000:]
    yield builder
    call(builder, "rmi", "--force", NAME)


def test_it_trains_in_a_mounted_folder_for_the_user_of_the_host(image, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *({"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(20)))
    user = f"{os.getuid()}:{os.getgid()}"
    run = [image, "run", "--rm", "--network", "none", "--user", user, "-v", f"{tmp_path}:/work", NAME]
    small = ["trainer.max_steps=2", "questions=0", "evaluate.rows=2", "generation.max_new_tokens=4"]
    done = call(*run, "train", "model=tiny_gpt2", "data.path=rows.jsonl", *small, "output_dir=run")
    assert done.returncode == 0, done.stderr[-3000:]
    made = Path(tmp_path / "run" / "report.html")
    assert made.stat().st_uid == os.getuid()
    asked = call(*run, "answer", "run=run", "question=What is 3?")
    assert asked.returncode == 0, asked.stderr[-3000:]


def test_it_says_its_version_and_is_not_root(image):
    assert call(image, "run", "--rm", NAME, "--version").stdout.splitlines()[0] == "llmft 0.1.0"
    assert call(image, "run", "--rm", "--entrypoint", "id", NAME, "-u").stdout.strip() == "1000"
