"""Versions of the libraries and the git revision of this code, for the record of a run."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = (
    "llmft",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "hydra-core",
    "omegaconf",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect results."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def git_revision() -> str | None:
    """The commit of the source, with ``-dirty`` if files have changed; None if it is not a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # S603: git, with a path of ours
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
