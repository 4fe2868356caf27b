"""``python docs/make_schemas.py`` writes what the files of conf/ take from the schema: conf/.schema/, and their comments.

The JSON Schemas in conf/.schema/ are for editors, and each file names its own at its top. A comment behind a key is the sentence
of the key, with its choices; a file that changes the value of an inherited key may say why instead.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmft.config.help.catalog import Catalog
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


def with_comments(text: str, file: Path, schema: Mapping[str, Any]) -> str:
    """The text of a file with the comment of each key that it introduces as the schema has it."""
    catalog, group = Catalog([CONF]), file.parent.relative_to(CONF).as_posix().removeprefix(".")
    own = catalog.file(group, file.stem)
    parents = [default.option for default in own.defaults if not default.group and default.option != "_self_"]
    prefix = f"{group}." if group else ""
    inherited = {name.removeprefix(prefix) for parent in parents for name in catalog.all_keys(group, parent)}
    for key in own.keys.values():
        if key.comment and key.name not in inherited and not own.is_global:
            for name in (key.name, key.name.rpartition(".")[0]):  # the comment of {a: 1, b: 2} is that of the mapping
                line = re.compile(rf"^( *{name.rpartition('.')[2]}:.* # ){re.escape(key.comment)}$", re.MULTILINE)
                if name and line.search(text) and (about := comment(schema, name.split("."))):
                    text = line.sub(lambda found, about=about: f"{found[1]}{about}", text, count=1)
                    break
    return text


def comment(schema: Mapping[str, Any], path: list[str]) -> str:
    """The comment behind a key: its sentence, after the choices if the sentence does not name them; empty without a schema."""
    for part in path:
        shapes = [schema, *schema.get("anyOf", [])]
        schema = next((shape["properties"][part] for shape in shapes if part in shape.get("properties", {})), {})
    sentence = schema.get("description", "").removesuffix(".")
    if sentence[1:].split(" ")[0] in ("", sentence[1:].split(" ")[0].lower()):  # not LoRA, SHA-256, ...
        sentence = sentence[:1].lower() + sentence[1:]
    found = choices(schema)
    named = all(re.search(rf"\b{choice}\b", sentence) for choice in found)
    return (
        sentence if named or len(found) < 2 or set(found) == {"true", "false"} else f"{' | '.join(found)}: {sentence}"
    )


def choices(schema: Mapping[str, Any]) -> list[str]:
    """The values of a key that has only some, as in YAML."""
    shapes: list[dict[str, Any]] = schema.get("anyOf", [schema])
    consts = [[shape["const"]] for shape in shapes if "const" in shape and shape["const"] is not False]
    lists = [*consts, *(shape["enum"] for shape in shapes if "enum" in shape)]
    both = [["true", "false"] for shape in shapes if shape.get("type") == "boolean" and "const" not in shape]
    return [str(value) for values in [*lists, *both] for value in values]


def main() -> None:
    """Write the schemas, and the files of conf/ with their comments."""
    found = schemas()
    write({name: schema for name, schema in found.items() if "/" not in name}, FOLDER)
    for file, name in files():
        text = with_line(file.read_text(encoding="utf-8"), file, name)
        file.write_text(with_comments(text, file, found[name]), encoding="utf-8")
    sys.stdout.write(f"{FOLDER}\n")


if __name__ == "__main__":
    main()
