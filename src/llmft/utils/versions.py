"""What computed the numbers of a run: versions of the libraries, and the revision of this code."""

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
    """Python and the libraries that decide numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def git_revision() -> str | None:
    """The commit of the source, ``-dirty`` behind it where files have changed; None where it is no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # S603: git, with a path of ours
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
