"""``python docs/make_reference.py`` writes docs/reference.md from conf/: commands, groups, options, keys and their comments."""

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
KEY = re.compile(r"^( *)([\w.]+):(?: +(.*?))?(?:\s+# (.*))?$")
INTRODUCTION = """# Reference

Generated from `conf/` by `docs/make_reference.py`; `python -m llmft [COMMAND] --help` shows the same with your config's values.
`???` must be set (an option does it). `${...}` takes the value of another key. An option has the keys of its group's base and
the keys that it lists.
"""
# Keys of Hydra, which the command line sets.
HIDDEN = ("defaults", "hydra", "_target_", "_partial_", "_convert_")


class Entry(NamedTuple):
    """A key of a file, dotted, with its value as written and its comment."""

    key: str
    value: str
    comment: str


def head(text: str) -> str:
    """The comment at the top of a file."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.split("\n"))
    return " ".join(line[1:].strip() for line in lines if "@package" not in line)


def entries(text: str) -> Iterator[Entry]:
    """The keys of a file in its order; a text or a list of several lines stands as ``...``."""
    above: list[tuple[int, str]] = []
    block = -1
    for line, following in itertools.pairwise([*text.split("\n"), ""]):
        match = KEY.match(line)
        if not match or line.lstrip().startswith("#") or 0 <= block < len(match[1]):
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3] or "", match[4] or ""
        above = [(depth, key) for depth, key in above if depth < indent]
        lines = value.startswith(("|", ">")) or (not value and following.lstrip().startswith("- "))
        block = indent if lines else -1
        names = [key for _, key in above] + [name]
        above.append((indent, name))
        if (value or lines) and not set(names) & set(HIDDEN):
            yield Entry(".".join(names), "..." if block >= 0 else value, comment)


def cell(text: str) -> str:
    """Escape text for a table cell."""
    return text.replace("|", "\\|")


def table(found: list[Entry], prefix: str) -> Iterator[str]:
    """A table of keys as written on the command line."""
    if found:
        yield from ("", "| key | default | |", "|---|---|---|")
        yield from (f"| `{prefix}{e.key}` | `{cell(e.value)}` | {cell(e.comment)} |" for e in found)
        yield ""


def command(file: Path) -> Iterator[str]:
    """The section of a command, with its keys."""
    text = file.read_text(encoding="utf-8")
    yield f"### {file.stem}\n\n{head(text)}"
    groups = [m[1] for m in re.finditer(r"^  - (?:override )?([a-z]+): ", text, re.MULTILINE)]
    shared = [m[1] for m in re.finditer(r"^  - (_[a-z]+)$", text, re.MULTILINE) if m[1] not in ("_self_", "_hydra")]
    if groups:
        yield f"\nGroups: {', '.join(f'`{name}=`' for name in groups)}."
    if shared:
        yield f"\nKeys of {', '.join(f'`{name[1:]}`' for name in shared)} too."
    yield from table(list(entries(text)), "")
    yield ""


def group(folder: Path) -> Iterator[str]:
    """The section of a group: its options, their common keys, and the keys of each."""
    yield f"### {folder.name}=\n"
    files = sorted(folder.glob("*.yaml"), key=lambda f: (not f.stem.startswith("_"), f.stem))
    for file in files:
        text = file.read_text(encoding="utf-8")
        name = f"All {folder.name} options" if file.stem == "_base" else f"`{folder.name}={file.stem}`"
        if folder.name == "callbacks" and file.stem != "default":
            name = f"`callbacks.{file.stem}`"
        if file.stem.startswith("_") and file.stem != "_base":
            name = f"All {file.stem[1:]} options"
        parents = re.search(r"^defaults: \[(.*)\]", text, re.MULTILINE)
        based = f" (like `{parents[1].removeprefix('_')}`, except)" if parents and parents[1] not in ("_base",) else ""
        yield f"**{name}**{based} {head(text)}".rstrip()
        yield from table(list(entries(text)), "" if "@package _global_" in text else f"{folder.name}.")
        yield ""


def page(conf: Path) -> str:
    """The page."""
    lines = [INTRODUCTION, "## Commands\n"]
    commands = sorted(conf.glob("[!_]*.yaml"), key=lambda f: (f.stem != "train", f.stem))
    for file in commands:
        lines += command(file)
    for file in sorted(conf.glob("_*.yaml")):
        if file.stem != "_hydra":
            text = file.read_text(encoding="utf-8")
            lines += [f"### {file.stem[1:]}\n\n{head(text)}", *table(list(entries(text)), ""), ""]
    lines.append("## Groups\n")
    for folder in sorted(path for path in conf.iterdir() if path.is_dir()):
        lines += group(folder)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(ROOT / "conf"), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
