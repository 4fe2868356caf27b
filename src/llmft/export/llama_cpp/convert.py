"""Convert an exported folder of transformers to a GGUF file with llama.cpp's converter, in a process of its own."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmft.export.llama_cpp import driver, sentencepiece_model
from llmft.utils.errors import UserError
from llmft.utils.text import printable

REASON = re.compile(r"(?:ERROR:[\w-]+:|\w*Error: )(.+)")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
T5 = ("t5", "mt5", "umt5")
SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def convert_model(
    tools: Path, source: Path, file: Path, outtype: str, name: str, metadata: Mapping[str, bool | int | str]
) -> None:
    """Write full weights as a GGUF file.

    Args:
        tools: The folder of the converter (``archive.converter_folder``).
        source: A folder with config, safetensors, tokenizer and chat template.
        file: The GGUF file to write.
        outtype: ``f32``, ``bf16``, ``f16`` or ``q8_0``.
        name: Written as ``general.name``.
        metadata: Keys of the GGUF file that replace what the converter writes.

    Raises:
        UserError: llama.cpp cannot run this model as it was trained.
    """
    check_model(source)
    with _prepared(source) as folder:
        arguments = [str(folder), "--outfile", str(file), "--outtype", outtype, "--model-name", name]
        _run(tools, "convert_hf_to_gguf.py", {**metadata, **_sliding_layers(source)}, arguments, file)


def convert_adapter(tools: Path, source: Path, base: Path, file: Path) -> None:
    """Write a LoRA adapter as a GGUF file, in float32.

    Args:
        tools: As of ``convert_model``.
        source: A folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: The folder of its base model; only the config and the tokenizer are read.
        file: The GGUF file to write.

    Raises:
        UserError: llama.cpp has no such adapter.
    """
    check_model(base)
    config = _json(source / "adapter_config.json")
    if config.get("fan_in_fan_out"):
        raise UserError(
            "gguf_adapter=true: the converter transposes adapters of GPT-2; use merged weights (gguf_adapter=false)"
        )
    if config.get("use_rslora"):  # llama.cpp scales by alpha / r
        config |= {"lora_alpha": config["lora_alpha"] * config["r"] ** 0.5, "use_rslora": False}
    with _prepared(base, weights=False) as folder, tempfile.TemporaryDirectory(prefix="llmft-lora-") as scratch:
        (Path(scratch) / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        (Path(scratch) / "adapter_model.safetensors").symlink_to((source / "adapter_model.safetensors").resolve())
        arguments = [scratch, "--base", str(folder), "--outfile", str(file), "--outtype", "f32"]
        _run(tools, "convert_lora_to_gguf.py", {}, arguments, file)


def check_model(folder: Path) -> None:
    """Refuse what llama.cpp runs, but otherwise than transformers.

    Raises:
        UserError: A T5 whose head is tied: llama.cpp leaves out its scale, d_model ** -0.5.
    """
    config = _json(folder / "config.json")
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    if config.get("model_type") in T5 and scaled:
        raise UserError(
            f"form=gguf: llama.cpp does not scale the logits of a T5 with a tied head (they are {config['d_model']} ** 0.5 "
            "times as large), so samples and beams would be others than in training. Use form=merged or form=ctranslate2; "
            "FLAN-T5 and T5 1.1 have a head of their own and can be converted"
        )


def _sliding_layers(folder: Path) -> dict[str, list[bool]]:
    """Which layers of a Gemma attend to a window; llama.cpp would take every layer but each second or sixth."""
    config = _json(folder / "config.json")
    kinds = config.get("layer_types") or []
    if config.get("model_type") not in ("gemma2", "gemma3_text") or not kinds:
        return {}
    return {"{arch}.attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds]}


@contextmanager
def _prepared(source: Path, *, weights: bool = True) -> Iterator[Path]:
    """A folder of links to the source, with what the converter misses in the files that transformers 5 writes."""
    with tempfile.TemporaryDirectory(prefix="llmft-gguf-") as scratch:
        folder = Path(scratch)
        for file in source.iterdir():
            if file.is_file() and file.name not in ("README.md", "config.json") and (weights or not _is_weights(file)):
                (folder / file.name).symlink_to(file.resolve())
        config = _json(source / "config.json")
        config.pop("auto_map", None)  # no code of a repository is run
        if config.get("model_type") == "gpt2":
            config.setdefault("n_ctx", config["n_positions"])  # transformers 5 does not write it
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if config.get("model_type") in T5 and not (folder / "spiece.model").exists():
            sentencepiece_model.write(source / "tokenizer.json", folder / "spiece.model")
        yield folder


def _is_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name.endswith(".index.json")


def _run(tools: Path, script: str, metadata: Mapping[str, Any], arguments: Sequence[str], file: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in (*SECRET, "NO_LOCAL_GGUF")
    } | OFFLINE
    # -P: the folder of the driver is not searched for imports
    command = [sys.executable, "-P", str(driver.__file__), str(tools), script, json.dumps(metadata), *arguments]
    # S603: our own interpreter and file; the arguments are paths
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if done.returncode or not file.is_file():
        raise UserError(f"form=gguf: llama.cpp's converter refuses this model ({_reason(done.stderr)})")


def _reason(output: str) -> str:
    """The last line of the converter's output that states a reason."""
    lines = [printable(line.strip())[:300] for line in output.splitlines() if line.strip()]
    found = [match[1] for line in lines if (match := REASON.fullmatch(line))]
    return (found or lines or ["it gave no reason"])[-1]


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
