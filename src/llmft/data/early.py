"""Checks of ``data.path`` and ``data.columns`` that need no library: they come before torch is imported."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.text_format import is_delimiter, is_encoding
from llmft.data.columns import check_columns
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.resolve import held_out_files, local_files, sample_of


def check_data(data: DictConfig) -> None:
    """Refuse files that do not exist, and columns that are unknown or too few.

    Args:
        data: The config of the data group; a value that needs an interpolation is left to the checks of all values.

    Raises:
        UserError: As ``local_files`` and ``check_columns``.
    """
    sets = data.get("sets")
    parts = (
        {f"data.sets.{name}": part for name, part in sets.items()} if isinstance(sets, DictConfig) else {"data": data}
    )
    for section, part in parts.items():
        if isinstance(part, DictConfig) and str(part.get("_target_")).startswith("llmft.data."):
            _check_part(section, part)


def _check_part(section: str, data: DictConfig) -> None:
    nodes = OmegaConf.to_container(data, resolve=False)
    assert isinstance(nodes, dict)
    path, columns = nodes.get("path"), nodes.get("columns")
    if "${" in f"{path} {columns}" or not isinstance(path, str | list):
        return
    local_files(path, f"{section}.path")
    extra = nodes.get("extra_val")
    own = {f"{section}.{name}": nodes.get(name) for name in ("val_path", "test_path")}
    own |= {f"{section}.extra_val.{name}": path for name, path in extra.items()} if isinstance(extra, dict) else {}
    for key, held_out in own.items():
        if isinstance(held_out, str | list) and "${" not in str(held_out):
            held_out_files(key, held_out)
    if path == "sample":
        sample_of(str(nodes.get("name")), f"{section}.path")
    if isinstance(columns, dict):
        check_columns(columns, path, _layout(section, nodes))


def _layout(section: str, nodes: Mapping[Any, Any]) -> FileFormat:
    """How the files are read; a value that is no encoding or delimiter is left to the checks of all values."""
    encoding, delimiter, sheet = (nodes.get(name) for name in ("encoding", "delimiter", "sheet"))
    return FileFormat(
        encoding if isinstance(encoding, str) and is_encoding(encoding) else None,
        delimiter if isinstance(delimiter, str) and is_delimiter(delimiter) else None,
        sheet if isinstance(sheet, str) and "${" not in sheet else None,
        keys=section,
    )
