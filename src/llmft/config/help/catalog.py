"""What ``conf/`` offers, read without Hydra (start-up time): commands, groups, options, and keys with defaults and comments."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llmft.utils.errors import UserError
from llmft.utils.text import one_line

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is optional, and ten times faster
# Keys of Hydra's instantiate.
HIDDEN = ("_target_", "_partial_", "_convert_")
USAGE = re.compile(r"python -m llmft ([^:]*(?::[^: ]+)*): (.*)", re.DOTALL)


class Key(NamedTuple):
    """A key: its dotted name on the command line, its default as written in YAML, and the comment behind it."""

    name: str
    default: str
    comment: str = ""


class Default(NamedTuple):
    """An entry of a defaults list, e.g. ``model: gpt2`` or ``academic@sets.academic``."""

    group: str
    option: str
    package: str = ""
    comment: str = ""


class File(NamedTuple):
    """A YAML file: the comment at its top, its defaults list (without overrides) and its own keys."""

    comment: str
    is_global: bool
    defaults: Sequence[Default]
    overrides: Sequence[Default]
    keys: dict[str, Key]


class Command(NamedTuple):
    """A command: how it is called, one sentence, its groups with their default options, and its keys outside of groups."""

    usage: str
    sentence: str
    groups: dict[str, Default]
    keys: dict[str, Key]


class Catalog:
    """The configs below some folders.

    Args:
        roots: ``conf/``, then the user's ``--config-dir``.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self._files: dict[str, File] = {}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The options of each group (``model``, ``hydra/launcher``), without templates such as ``_base``."""
        found: dict[str, set[str]] = {}
        for root in self.roots:
            for file in [*root.glob("*/*.yaml"), *root.glob("hydra/*/*.yaml")]:
                if not file.stem.startswith("_"):
                    found.setdefault(file.parent.relative_to(root).as_posix(), set()).add(file.stem)
        return {group: sorted(found[group]) for group in sorted(found)}

    def file(self, group: str, name: str) -> File:
        """A file by its group (empty for a command) and name; one without content if it does not exist.

        Raises:
            UserError: It is no YAML.
        """
        path = f"{group}/{name}.yaml".lstrip("/")
        if path not in self._files:
            found = next((root / path for root in self.roots if (root / path).is_file()), None)
            try:
                self._files[path] = parse(found.read_text(encoding="utf-8") if found else "")
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise UserError(f"{found}: {one_line(error)}") from None
        return self._files[path]

    def keys(self, group: str, option: str) -> dict[str, Key]:
        """The keys that an option sets, with those of the files that it builds on; names as on the command line."""
        hidden = () if group.startswith("hydra/") else ("hydra",)
        found = {name: (key, name.split(".")) for name, key in self.all_keys(group, option).items()}
        return {n: key for n, (key, parts) in found.items() if parts[0] not in hidden and not set(parts) & set(HIDDEN)}

    def all_keys(self, group: str, name: str) -> dict[str, Key]:
        """The keys of an option, or of a command (whose group is empty), with ``_target_`` and its like."""
        prefix = "" if not group or self.file(group, name).is_global else f"{group.replace('/', '.')}."
        return {prefix + key: value._replace(name=prefix + key) for key, value in self._keys(group, name).items()}

    def group_sentence(self, group: str) -> str:
        """What a group is for: the comment behind its entry in a command's defaults list."""
        names = ["train", *(file.stem for file in self.roots[0].glob("[!_]*.yaml"))]
        entries = [entry for name in names for entry in self.file("", name).defaults if entry.group == group]
        return next((entry.comment for entry in entries if entry.comment), "")

    def command(self, name: str) -> Command:
        """The command of this name."""
        file = self.file("", name)
        usage = USAGE.fullmatch(file.comment)
        groups = {default.group: default for default in self._defaults(name) if default.group}
        keys = self.keys("", name)
        return Command(usage[1] if usage else name, usage[2] if usage else file.comment, groups, keys)

    def _defaults(self, name: str) -> Iterator[Default]:
        for default in self.file("", name).defaults:
            if default.group or default.option == "_self_":
                yield default
            else:
                yield from self._defaults(default.option)

    def _keys(self, group: str, name: str) -> dict[str, Key]:
        file, found = self.file(group, name), {}
        own = Default("", "_self_")  # without it in the list, a file's own keys come last
        for default in [*file.defaults, *[own] * (own not in file.defaults)]:
            if default.option == "_self_":
                more = file.keys
            elif group or not default.group:
                more = self._keys(default.group or group, default.option)
            else:
                continue  # a command's group
            if default.package:
                more = {f"{default.package}.{key}": value for key, value in more.items()}
            for key, value in more.items():
                comment = value.comment or (found[key].comment if key in found else "")
                found[key] = Key(key, value.default, comment)
        return found


def parse(text: str) -> File:
    """Read the text of a YAML file, with its comments."""
    lines = text.splitlines()
    top = []
    for line in lines:
        if not line.startswith("#"):
            break
        top.append(line.removeprefix("#").strip())
    is_global = "@package _global_" in top
    comment = " ".join(line for line in top if not line.startswith(("@package", "yaml-language-server")))
    node = yaml.compose(text, Loader=LOADER)
    defaults, keys = [], []
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if name.value == "defaults":
            defaults = [_default(item, lines) for item in value.value]
            continue
        keys += _keys(name, value, "", lines)
    mine = [default for default in defaults if not default.group.startswith("override ")]
    others = [d._replace(group=d.group.removeprefix("override ").lstrip("/")) for d in defaults if d not in mine]
    return File(comment, is_global, mine, others, {key.name: key for key in keys})


def first_sentence(text: str) -> str:
    """The first sentence, without its period."""
    return re.split(r"\. (?=[A-Z`]|\w+=)", text, maxsplit=1)[0].removesuffix(".")


def _default(item: yaml.Node, lines: list[str]) -> Default:
    if isinstance(item, yaml.MappingNode):
        [(key, value)] = item.value
        group, _, package = key.value.partition("@")
        return Default(group.lstrip("/"), value.value, package, _comment(value, lines))
    option, _, package = str(item.value).partition("@")
    return Default("", option, package)


def _keys(name: yaml.Node, value: yaml.Node, prefix: str, lines: list[str]) -> Iterator[Key]:
    dotted = f"{prefix}{name.value}"
    if isinstance(value, yaml.MappingNode) and value.value:
        keys = [key for child, node in value.value for key in _keys(child, node, f"{dotted}.", lines)]
        if value.flow_style:  # the comment behind {a: 1, b: 2} is that of its first key
            keys = [key._replace(comment=key.comment if number == 0 else "") for number, key in enumerate(keys)]
        yield from keys
        return
    in_block = getattr(value, "style", None) in ("|", ">") or getattr(value, "flow_style", None) is False
    written = "..." if in_block else _text(value, lines)
    yield Key(dotted, written, _comment(name if in_block else value, lines))


def _text(node: yaml.Node, lines: list[str]) -> str:
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column] or "null" if lines else "null"
    inside = [lines[start.line][start.column :], *lines[start.line + 1 : end.line], lines[end.line][: end.column]]
    return " ".join(line.strip() for line in inside)


def _comment(node: yaml.Node, lines: list[str]) -> str:
    mark = node.end_mark
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    found = re.match(r"[^#]*\s# (.*)", rest)
    return found[1].strip() if found else ""
