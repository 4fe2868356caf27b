"""``python docs/make_notebook.py`` runs docs/notebook.ipynb in an empty folder and stores what its cells show."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parent / "notebook.ipynb"
DURATION = re.compile(r"( batches| steps| rows| answers), in (?:\d+:)?\d+:\d\d")  # of the lines of progress


def executed(folder: Path, replacements: tuple[tuple[str, str], ...] = ()) -> Any:
    """The notebook with the outputs of a run in ``folder``.

    Args:
        folder: The working directory of its kernel.
        replacements: Texts in its code to replace before it runs.

    Raises:
        CellExecutionError: A cell raised an exception.
    """
    notebook = nbformat.read(PAGE, as_version=4)
    for cell in notebook.cells:
        for old, new in replacements:
            cell.source = cell.source.replace(old, new)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def portable(notebook: Any, folder: Path) -> str:
    """Its JSON without durations and paths, which are those of the machine that ran it."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.language_info = {"name": "python"}
    text = DURATION.sub(r"\1", nbformat.writes(notebook).replace(f"{folder}/", "").replace(f"{Path.home()}/", "~/"))
    for name in (str(Path.home()), str(PAGE.parents[1])):
        if name in text:
            raise SystemExit(f"an output of the notebook names {name}")
    return text + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["PYTHONPATH"] = str(PAGE.parents[1] / "src")
        PAGE.write_text(portable(executed(Path(temporary)), Path(temporary)), encoding="utf-8")
