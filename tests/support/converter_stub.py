"""A stand-in for llama.cpp's converter."""

from pathlib import Path

# What llmft replaces in it.
BASE = """
class TextModel:
    get_vocab_base_pre = None
class gguf:
    class GGUFWriter:
        write_header_to_file = None
    class GGUFValueType:
        BOOL, UINT32, STRING, ARRAY = 7, 4, 8, 9
"""


def write(folder: Path, script: str) -> Path:
    """Write a converter into a folder, which is made if needed.

    Args:
        folder: In place of the unpacked archive.
        script: Code of ``convert_hf_to_gguf.py``.
    """
    (folder / "conversion").mkdir(parents=True, exist_ok=True)
    (folder / "conversion" / "base.py").write_text(BASE)
    (folder / "convert_hf_to_gguf.py").write_text(script)
    return folder
