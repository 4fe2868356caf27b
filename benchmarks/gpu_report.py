"""Write the results of a run on a GPU into docs/gpu.md.

    python benchmarks/gpu_report.py FOLDER [PAGE]

``FOLDER`` is what ``gpu_first_run.sh`` wrote: ``machine.txt`` (one line: date, card, versions), ``tests*.xml`` (JUnit, with measured values as
properties), ``NAME.md`` for each section ``<!-- NAME -->`` of the page, and ``summary.txt``, which says which steps have no result. Other sections stay as they are.
"""

import sys
from collections import Counter
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
    """The tests of several JUnit files, in their order; skipped ones are counted by their reasons."""
    found = [row for file in files for row in rows(file)]
    reasons = Counter(one.get("message") for file in files for one in ElementTree.parse(file).getroot().iter("skipped"))
    skipped = ", ".join([f"{reasons.total()} skipped", *(f"{n} of them: {why}" for why, n in reasons.most_common())])
    head = "| test | result | measured | s |\n|---|---|---|---:|\n"
    body = "\n".join(f"| `{name}` | {result} | {values} | {seconds} |" for name, result, values, seconds in found)
    passed = sum(result == "passed" for _, result, _, _ in found)
    return f"{passed} passed, {len(found) - passed} failed, {skipped}.\n\n{head}{body}"


def without_result(summary: Path) -> dict[str, str]:
    """What to say in the sections of the steps that failed, or for which no time was left."""
    found = {}
    for line in summary.read_text(encoding="utf-8").splitlines() if summary.exists() else ():
        outcome, _, name, *how = line.split()
        section = name.removeprefix("bench_").removesuffix(":")
        found.pop(section, None)  # an earlier try
        if outcome == "skipped":
            found[section] = "Not run: no time was left."
        elif outcome == "FAILED":
            over = how[0] in ("rc=124", "rc=137")
            found[section] = (
                f"No result: {'out of time' if over else 'it failed'} after {how[1]} s; `{name}.txt` has its output."
            )
    return found


def write(folder: Path, page: Path) -> list[str]:
    """Fill the sections of a page; returns their names."""
    text = page.read_text(encoding="utf-8")
    found = {name: why for name, why in without_result(folder / "summary.txt").items() if f"<!-- {name} -->" in text}
    found |= {file.stem: file.read_text(encoding="utf-8").strip() for file in sorted(folder.glob("*.md"))}
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
