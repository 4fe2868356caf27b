"""The wheel in an empty environment, installed by the commands of the Dockerfile: it trains and answers outside of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_rows
from tests.support.dockerfile import stages

pytestmark = pytest.mark.slow


def sh(line: str, folder: Path, path: Path) -> str:
    """The output of a shell line with the environment's programs, without the checkout on Python's path."""
    kept = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "LLMFT_CACHE")}
    found = {"PATH": f"{path}:{os.environ['PATH']}", "LLMFT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, env={**kept, **found})
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """An empty folder, and that of the environment's programs."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    path, wheels = folder / "venv" / "bin", folder / "wheels"
    places = {"/constraints.txt": ROOT / "constraints.txt", "/wheels": wheels, ' --index-url "$TORCH_INDEX"': ""}
    for line in (*stages()["wheel"].run, *stages()["cpu"].run):
        for old, new in places.items():  # the index of this machine, which may reach no other
            line = line.replace(old, str(new))
        sh(line.replace("--wheel-dir", f"{ROOT} --wheel-dir").removesuffix(" ."), folder, path)
    work = folder / "work"
    work.mkdir()
    write_rows(work / "rows.jsonl", *({"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(20)))
    return work, path


def test_it_trains_and_answers(installed):
    work, path = installed
    small = "trainer.max_steps=3 questions=0 evaluate.rows=2 generation.max_new_tokens=4"
    said = sh(f"llmft train model=tiny_gpt2 data.path=rows.jsonl {small} output_dir=run", work, path)
    assert "20 rows read, 20 kept" in said
    assert (work / "run" / "model" / "adapter_model.safetensors").is_file()
    assert "</html>" in (work / "run" / "report.html").read_text(encoding="utf-8")
    sh("llmft answer run=run question='What is 3?'", work, path)
    sh("llmft export run=run to=model", work, path)
    assert (work / "model" / "model.safetensors").is_file()


def test_its_version_its_files_and_its_dependencies_are_complete(installed):
    work, path = installed
    assert sh("llmft --version", work, path).splitlines()[0] == "llmft 0.1.0"
    assert "No broken requirements found." in sh("pip check", work, path)
    where = sh("python -c 'import llmft, llmft.config.paths as p; print(llmft.__file__, p.conf_dir())'", work, path)
    assert all(place.startswith(str(path.parent)) for place in where.split())
    # -W error: a syntax or deprecation warning of our own modules, which are compiled here for the first time
    sh("python -W error -B -c 'import llmft; llmft.__version__; import llmft.__main__'", work, path)
