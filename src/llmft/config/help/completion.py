"""Shell completion of commands, groups, options, keys and values.

A shell calls ``llmft __complete WORDS`` at each Tab, so nothing here imports Hydra, OmegaConf, pydantic or torch.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from llmft.config.help.catalog import Catalog, Key, first_sentence
from llmft.config.help.index import index

FILES = ":files"  # printed instead of candidates: the shell completes file names
SHELLS = ("bash", "zsh", "fish")
# Keys whose value is a file or a folder, and `path` at the end of any key.
PATHS = (
    "run",
    "resume",
    "input",
    "output",
    "output_dir",
    "runs",
    "to",
    "archive",
    "data.cache",
    "peft.adapter",
    "evaluate.response_file",
    "report.reference_curve",
)
FLAGS = {
    "--help": "help on a command",
    "--version": "versions of llmft and its libraries",
    "--multirun": "run every combination of comma-separated values (-m)",
    "--cfg": "print the config instead of running: job, hydra or all",
    "--info": "print how the config is composed",
    "--config-dir=": "a folder with your own YAML files",
}
AFTER_FLAG = {
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "-i": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


class Candidate(NamedTuple):
    """A word that the shell may insert. One that ends with ``=``, ``.`` or ``,`` is not complete, and no space follows it."""

    word: str
    sentence: str = ""


class Line(NamedTuple):
    """The words of a command line before the one that is being typed.

    Attributes:
        command: Its command.
        is_open: Whether the word that is being typed may be the command.
        words: All of them.
    """

    command: str
    is_open: bool
    words: Sequence[str]

    def options(self) -> dict[str, str]:
        """The options so far, by group; other ``key=value`` arguments too."""
        return {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in self.words) if value}


def complete(words: Sequence[str], commands: Sequence[str], catalog: Callable[[Sequence[str]], Catalog]) -> str:
    """The answer to a shell: ``:files``, or a candidate per line, with its sentence after a tab.

    Args:
        words: Everything after ``llmft`` up to the cursor; the last one, perhaps empty, is being typed.
        commands: Names of all commands.
        catalog: Reads the configs, given the words (which may hold ``--config-dir``).
    """
    *before, current = words or [""]
    if before and before[-1] in AFTER_FLAG:
        return _lines(map(Candidate, AFTER_FLAG[before[-1]]), current)
    if before == ["completion"]:
        return _lines(map(Candidate, SHELLS), current)
    found = catalog(before)
    if before == ["help"]:
        return _lines(topics("train", found, commands), current)
    named = before[0] if before and before[0] in commands else ""
    line = Line(named or "train", not before, before)
    if current.startswith("-"):
        is_dir = current.startswith("--config-dir=")
        return FILES if is_dir else _lines((Candidate(*flag) for flag in FLAGS.items()), current)
    if "=" in current:
        return _values(current, line, found, commands)
    return _lines(_names(current, line, found, commands), current)


def bash_words(text: str) -> list[str]:
    """The words of a line up to the cursor, without the program; empty inside quotes, where there is nothing to complete."""
    try:
        words = shlex.split(text)
    except ValueError:  # an open quote, or a backslash at the end
        return []
    return [*words[1:], *([""] if text[-1:].isspace() else [])]


def _lines(candidates: Iterable[Candidate], current: str) -> str:
    fitting = [c for c in candidates if c.word.startswith(current)]
    return "\n".join(dict.fromkeys(f"{word}\t{first_sentence(sentence)}" for word, sentence in fitting))


def _names(current: str, line: Line, catalog: Catalog, commands: Sequence[str]) -> Iterator[Candidate]:
    if line.is_open:
        yield from (Candidate(name, catalog.command(name).sentence) for name in commands)
        yield Candidate("completion", "print a script for bash, zsh or fish")
    yield Candidate("help=", "options and keys of a group")
    typed = current.lstrip("+~")
    mark, section = current[: len(current) - len(typed)], typed[: typed.rfind(".") + 1]
    for group, sentence in groups(line.command, catalog).items():
        yield Candidate(f"{mark}{group}=", sentence)
    for key in keys(line, catalog):
        if not key.name.startswith(section):
            continue
        name, is_section, _ = key.name.removeprefix(section).partition(".")
        if not is_section:
            yield Candidate(f"{mark}{key.name}=", key.comment)
        elif current:  # the first list has the groups
            yield Candidate(f"{mark}{section}{name}.", "keys")


def _values(current: str, line: Line, catalog: Catalog, commands: Sequence[str]) -> str:
    key, _, value = current.partition("=")
    name = key.lstrip("+~")
    if name == "help":
        found = topics(line.command, catalog, commands)
    elif name.partition("@")[0] in catalog.groups:
        group = name.partition("@")[0]
        found = [Candidate(option, catalog.file(group, option).comment) for option in catalog.groups[group]]
    elif name in PATHS or name.endswith(".path"):
        return FILES
    else:
        found = map(Candidate, choices(name, line, catalog))
    typed = value[: value.rfind(",") + 1] if {"-m", "--multirun"} & set(line.words) else ""
    return _lines((Candidate(f"{key}={typed}{word}", sentence) for word, sentence in found), current)


def groups(command: str, catalog: Catalog) -> dict[str, str]:
    """The groups of a command, each with its sentence."""
    found = {group: catalog.group_sentence(group) for group in catalog.command(command).groups}
    sweeps = {group: "" for group in catalog.groups if group.startswith("hydra/")}
    return found | (sweeps if command == "train" else {})


def topics(command: str, catalog: Catalog, commands: Sequence[str]) -> list[Candidate]:
    """What ``help=`` explains: commands and groups."""
    found = [Candidate(name, catalog.command(name).sentence) for name in commands]
    return found + [Candidate(*group) for group in groups(command, catalog).items() if group[0] not in commands]


def keys(line: Line, catalog: Catalog) -> list[Key]:
    """The keys of a command, with those of the options that are chosen; their sentences as comments."""
    command, chosen, known = catalog.command(line.command), line.options(), index(catalog).get(line.command, {})
    found = dict(command.keys)
    for group, default in command.groups.items():
        found |= catalog.keys(group, chosen.get(group, default.option))
    return [key._replace(comment=known.get(name, (key.comment,))[0]) for name, key in found.items()]


def choices(name: str, line: Line, catalog: Catalog) -> list[str]:
    """The values of a key that has few."""
    _, listed = index(catalog).get(line.command, {}).get(name, ("", []))
    is_flag = any(key.name == name and key.default in ("true", "false") for key in keys(line, catalog))
    return listed or (["true", "false"] if is_flag else [])


def config_dirs(words: Sequence[str]) -> list[str]:
    """The folders of ``--config-dir``."""
    given = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return given + [word for flag, word in pairwise(words) if flag in ("--config-dir", "-cd")]
