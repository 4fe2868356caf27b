"""``--help``, ``help=GROUP``, ``--version`` and shell completion, answered without Hydra."""

from collections.abc import Sequence
from pathlib import Path

from llmft.config.help import completion
from llmft.config.help.catalog import Catalog
from llmft.config.help.overview import overview
from llmft.config.help.scripts import SCRIPTS
from llmft.config.paths import conf_dir
from llmft.utils.errors import UserError
from llmft.utils.text import did_you_mean
from llmft.utils.versions import versions

LIBRARIES = ("llmft", "python", "torch", "transformers", "lightning", "peft")


def answer(arguments: Sequence[str], commands: Sequence[str]) -> str | None:
    """The text that a command line asks for; None if it runs a command.

    Args:
        arguments: Of the command line.
        commands: Names of all commands.

    Raises:
        UserError: There is no such group, command or shell.
    """
    first = arguments[0] if arguments else ""
    if first == "__complete":
        return _candidates(arguments[1:], commands)
    if first == "completion":
        return _script(arguments[1:])
    if {"--shell-completion", "-sc"} & set(arguments):  # Hydra's flag, whose script does not know the commands
        return _script([word.removeprefix("install=") for word in arguments if word.startswith("install=")])
    if "--version" in arguments:
        found = versions()  # from the metadata; none of them is imported
        return "".join(f"{name} {found[name]}\n" for name in LIBRARIES)
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("help=")]
    if first == "help":
        named = [word for word in arguments[1:2] if "=" not in word] or [""]
    if not named and not {"--help", "-h"} & set(arguments):
        return None
    if first.isidentifier() and first not in (*commands, "help"):
        return None  # no such command, which is said elsewhere
    return _help(arguments, commands, named[0] if named else "")


def _help(arguments: Sequence[str], commands: Sequence[str], topic: str) -> str:
    catalog = _catalog(arguments)
    given = next((argument for argument in arguments if argument in commands), "") if arguments[0] != "help" else ""
    if not (topic or given):
        return overview(catalog, commands)
    from llmft.config.help import page  # start-up time: pydantic

    if not topic:
        return page.of_command(catalog, given)
    command = catalog.command(given or "train")
    groups = command.groups if given else dict.fromkeys(catalog.groups)
    sections = {name.partition(".")[0] for name in command.keys if "." in name}
    if topic in groups:
        owners = [name for name in [given or "train", *commands] if topic in catalog.command(name).groups]
        return page.of_group(catalog, next(iter(owners), ""), topic, _option(arguments, topic, catalog.groups[topic]))
    if topic in commands:
        return page.of_command(catalog, topic)
    if topic in sections:
        return page.of_section(catalog, given or "train", topic)
    known, whose = sorted({*groups, *sections}), f" of {given}" if given else ""
    hint = did_you_mean(topic, [*known, *commands])
    raise UserError(f"help={topic}: no such group{whose}.{hint} There are: {', '.join(known)}")


def _option(arguments: Sequence[str], group: str, options: Sequence[str]) -> str | None:
    """The option of a group that a command line names."""
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}.get(group)
    if given and given not in options:
        hint = did_you_mean(given, options)
        raise UserError(f"{group}={given}: no such option.{hint} There are: {', '.join(options)}")
    return given


def _candidates(words: Sequence[str], commands: Sequence[str]) -> str:
    if words[:1] == ["--bash"]:
        words = completion.bash_words(words[1])
    try:
        return completion.complete(words, commands, _catalog) + "\n" if words else ""
    except (UserError, OSError):  # a file of the user's that is not valid is no fault of this word
        return ""


def _script(arguments: Sequence[str]) -> str:
    shell = arguments[0] if arguments else ""
    if shell not in SCRIPTS:
        hint = did_you_mean(shell, SCRIPTS)
        raise UserError(
            f"{' '.join(['completion', shell]).strip()}: which shell?{hint} There are: {', '.join(SCRIPTS)}"
        )
    return SCRIPTS[shell].lstrip()


def _catalog(arguments: Sequence[str]) -> Catalog:
    return Catalog([conf_dir(), *map(Path, completion.config_dirs(arguments))])
