"""Task files of ``suite_path``: their data beside them, and no code of theirs unless the command line allows it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from llmft.utils.errors import UserError

SUITE_CODE = "suite_code"
REMOTE = ("http://", "https://", "hf://")
ALLOW = f"if you trust it, pass 'allow_targets=[{SUITE_CODE}]' on the command line"


def check_files(folder: Path) -> None:
    """Check that no task file of a folder names Python code, or includes a file that does.

    Raises:
        UserError: There is no such folder, a file cannot be read, or it names code.
    """
    if not folder.is_dir():
        raise UserError(f"suite_path={folder}: no such folder")
    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise UserError(f"suite_path={folder}: holds no task file (*.yaml)")
    seen: set[Path] = set()
    if faults := [fault for file in files for fault in _faults(file, seen)]:
        raise UserError.from_faults("suite_path", faults)


def with_local_data(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A task whose data files are relative to the folder of its file.

    Args:
        task: The content of a task file.
        folder: Where the file is.
    """
    options = dict(task.get("dataset_kwargs") or {})
    for name in ("data_files", "data_dir"):
        if name in options:
            options[name] = _absolute(options[name], folder)
    return {**task, "dataset_kwargs": options} if options else dict(task)


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value if value.startswith(REMOTE) else str(folder / value)
    if isinstance(value, Mapping):
        return {split: _absolute(files, folder) for split, files in value.items()}
    return [_absolute(item, folder) for item in value] if isinstance(value, list) else value


def _faults(file: Path, seen: set[Path]) -> Iterator[str]:
    """Tags of a file and of those that it includes that are not plain YAML: ``!function`` imports a function and calls it."""
    file = file.resolve()
    if file in seen:
        return
    seen.add(file)
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    for node in _nodes(root):
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            text = node.value if isinstance(node, yaml.ScalarNode) else ""
            yield f"{file}:{node.start_mark.line + 1}: {node.tag} {text}: runs Python code; {ALLOW}"
    for name in _included(root):
        yield from _faults(file.parent / name, seen)


def _nodes(root: Any) -> Iterator[yaml.Node]:
    """All nodes of a file, each once, as aliases could make them many."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _included(root: Any) -> Iterator[str]:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "include":
            items = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from (item.value for item in items if isinstance(item, yaml.ScalarNode))
