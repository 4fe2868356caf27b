"""``python docs/make_schemas.py`` writes conf/.schema/, JSON Schemas for editors, and the line in each file naming it."""

import sys
from collections.abc import Iterator
from pathlib import Path

from llmft.config.json_schema import schemas, write

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FOLDER = CONF / ".schema"
LINE = "# yaml-language-server: $schema="
# Files that no command and no group is named after.
OTHERS = {"_evaluate": "evaluate", "_report": "report", "_hydra": "experiment", "debug": "experiment"}


def files() -> Iterator[tuple[Path, str]]:
    """The YAML files of conf/, each with the name of its schema."""
    for file in sorted(CONF.rglob("*.yaml")):
        parts = file.relative_to(CONF).with_suffix("").parts
        yield file, OTHERS.get(parts[0], parts[0])


def with_line(text: str, file: Path, name: str) -> str:
    """The text of a file with the line that names its schema: the first one, or the one behind ``# @package``."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(LINE)]
    up = "../" * (len(file.relative_to(CONF).parts) - 1)
    at = 1 if lines[0].startswith("# @package") else 0
    return "".join([*lines[:at], f"{LINE}{up}.schema/{name}.json\n", *lines[at:]])


def main() -> None:
    """Write the schemas and the lines."""
    write({name: schema for name, schema in schemas().items() if "/" not in name}, FOLDER)
    for file, name in files():
        file.write_text(with_line(file.read_text(encoding="utf-8"), file, name), encoding="utf-8")
    sys.stdout.write(f"{FOLDER}\n")


if __name__ == "__main__":
    main()
