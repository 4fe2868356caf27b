"""Write the results of a run on a GPU into docs/gpu.md.

    python benchmarks/gpu_report.py FOLDER [PAGE]

``FOLDER`` is what ``gpu_first_run.sh`` wrote: ``machine.txt`` (one line: date, card, versions), ``tests*.xml`` (JUnit, with measured values as
properties), and ``NAME.md`` for each section ``<!-- NAME -->`` of the page. A section without a file stays as it is.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree  # the file is pytest's own

sys.path.insert(0, str(Path(__file__).resolve().parent))

from training.table import publish

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"


def rows(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Module and test, result, measured values and seconds of each test that was not skipped."""
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        if case.find("skipped") is not None:
            continue
        values = ", ".join(f"{one.get('name')} {one.get('value')}" for one in case.iter("property"))
        name = f"{(case.get('classname') or '').rpartition('.')[2]}::{case.get('name')}"
        yield name, "**failed**" if failed else "passed", values, f"{float(case.get('time') or 0):.0f}"


def tests_table(files: list[Path]) -> str:
    """The tests of several JUnit files, in their order; skipped ones are counted."""
    found = [row for file in files for row in rows(file)]
    skipped = sum(1 for file in files for _ in ElementTree.parse(file).getroot().iter("skipped"))
    head = "| test | result | measured | s |\n|---|---|---|---:|\n"
    body = "\n".join(f"| `{name}` | {result} | {values} | {seconds} |" for name, result, values, seconds in found)
    passed = sum(result == "passed" for _, result, _, _ in found)
    return f"{passed} passed, {len(found) - passed} failed, {skipped} skipped.\n\n{head}{body}"


def write(folder: Path, page: Path) -> list[str]:
    """Fill the sections of a page; returns their names."""
    found = {file.stem: file.read_text(encoding="utf-8").strip() for file in sorted(folder.glob("*.md"))}
    if files := sorted(folder.glob("tests*.xml")):
        found["gpu_tests"] = tests_table(files)
    machine = folder / "machine.txt"
    if machine.exists():
        found["gpu_machine"] = f"Run on {machine.read_text(encoding='utf-8').strip()}"
    for name, text in found.items():
        publish(page, name, text)
    return sorted(found)


def main() -> None:
    folder, page = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else PAGE
    print(f"{page}: {', '.join(write(folder, page)) or 'nothing to write'}")


if __name__ == "__main__":
    main()
