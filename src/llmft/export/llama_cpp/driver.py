"""Run a script of llama.cpp's converter in this process: ``python -P driver.py FOLDER SCRIPT METADATA ARGUMENTS``.

``convert.py`` starts it as a process of its own. It imports nothing of llmft.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

MERGES = "tokenizer.ggml.merges"


def pre_tokenizer(file: Path) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a byte-level BPE tokenizer that the converter has no digest of.

    The converter knows tokenizers by a digest of the ids of one text, so it refuses every tokenizer that users train
    themselves. Two kinds need no digest: without merges the split has no effect, and GPT-2's is the default of ``ByteLevel``.

    Args:
        file: ``tokenizer.json``.

    Returns:
        None for any other tokenizer.
    """
    parts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    cutter, model = parts.get("pre_tokenizer") or {}, parts["model"]
    byte_level = (
        cutter.get("type") == "ByteLevel" and not cutter.get("add_prefix_space") and not parts.get("normalizer")
    )
    if model["type"] == "BPE" and byte_level and (cutter.get("use_regex", True) or not model["merges"]):
        return "gpt-2"
    return None


def main(folder: str, script: str, metadata: dict[str, Any], arguments: list[str]) -> None:
    """Run the script as ``__main__``.

    Args:
        folder: The folder of the converter.
        script: One of its scripts.
        metadata: Keys of the GGUF file that replace what the converter writes; ``{arch}`` is the architecture's name. A value is
            a bool, an int, a str or a list of bools.
        arguments: Of the script.
    """
    sys.path.insert(0, folder)
    from conversion.base import TextModel, gguf  # pyright: ignore[reportMissingImports]  # of the archive

    by_digest, write_header = TextModel.get_vocab_base_pre, gguf.GGUFWriter.write_header_to_file
    kinds = gguf.GGUFValueType
    types = {bool: kinds.BOOL, int: kinds.UINT32, str: kinds.STRING, list: kinds.ARRAY}

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return by_digest(self, tokenizer)
        except NotImplementedError:
            file = Path(self.dir_model) / "tokenizer.json"
            if name := pre_tokenizer(file) if file.is_file() else None:
                return name
            raise

    def write_header_to_file(self: Any, *given: Any, **options: Any) -> None:
        for key, value in metadata.items():
            name = key.replace("{arch}", str(self.arch))
            self.kv_data[0][name] = gguf.GGUFValue(value=value, type=types[type(value)])
        kind = self.kv_data[0].get("tokenizer.ggml.model")
        if kind and kind.value == "gpt2" and MERGES not in self.kv_data[0]:
            self.add_token_merges(["\u0100 \u0100"])  # two zero bytes: llama.cpp loads no BPE tokenizer without merges
        write_header(self, *given, **options)

    TextModel.get_vocab_base_pre = get_vocab_base_pre
    gguf.GGUFWriter.write_header_to_file = write_header_to_file
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(folder) / script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4:])
