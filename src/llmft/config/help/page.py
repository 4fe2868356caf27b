"""Help pages: a command's keys and groups, a group's options and keys."""

import textwrap
from collections.abc import Iterable, Iterator

from llmft.config.help.catalog import Catalog, Key, first_sentence
from llmft.config.help.examples import EXAMPLES
from llmft.config.help.facts import described
from llmft.config.help.layout import columns, fill, two_columns


def of_command(catalog: Catalog, name: str) -> str:
    """A command: its keys, and its groups with their options."""
    command = catalog.command(name)
    options = " [group=option ...]" if command.groups else ""
    parts = [textwrap.fill(f"usage: llmft {command.usage}{options} [key=value ...]", columns()), fill(command.sentence)]
    parts.append(f"examples:\n{two_columns(EXAMPLES[name], width=min(max(map(len, EXAMPLES[name])), 50) + 2)}")
    sections: dict[str, list[Key]] = {"": []}
    for key in described(catalog, name, command.keys.values(), {}, types=False):
        sections.setdefault(key.name.partition(".")[0] if "." in key.name else "", []).append(key)
    parts += [f"{section or 'keys'}:\n{key_table(keys)}" for section, keys in sections.items() if keys]
    if command.groups:
        groups = {f"{group}={default.option}": group_line(catalog, group) for group, default in command.groups.items()}
        parts.append(f"groups (llmft {name} help=GROUP: their options and keys):\n{two_columns(groups)}")
    return "\n\n".join(parts) + "\n"


def group_line(catalog: Catalog, group: str) -> str:
    """A group's sentence and its options."""
    options, sentence = ", ".join(catalog.groups.get(group, [])), catalog.group_sentence(group)
    return f"{sentence}: {options}" if sentence else options


def of_group(catalog: Catalog, command: str, group: str, chosen: str | None) -> str:
    """A group: its options, and the keys of one of them with its values.

    Args:
        catalog: Of all configs.
        command: That has the group.
        group: E.g. ``peft``.
        chosen: The option that the command line names.
    """
    groups = catalog.command(command).groups
    default = groups[group].option if group in groups else None
    options = {o + " (default)" * (o == default): option_line(catalog, group, o) for o in catalog.groups[group]}
    parts = [f"{group}=OPTION:\n{two_columns(options)}"]
    shown = chosen or default or catalog.groups[group][0]
    file, keys = catalog.file(group, shown), catalog.keys(group, shown)
    if chosen and first_sentence(file.comment) != file.comment.removesuffix("."):
        parts.append(fill(file.comment))
    if file.overrides:
        parts.append(f"{group}={shown} sets:\n" + "\n".join(f"  {d.group}={d.option}" for d in file.overrides))
    if keys:
        table = key_table(collapsed(catalog, command, group, shown, keys.values()))
        parts.append(f"keys, with the values of {group}={shown}:\n{table}")
    parts += more_keys(catalog, command, group, set(keys))
    return "\n\n".join(parts) + "\n"


def more_keys(catalog: Catalog, command: str, group: str, known: set[str]) -> Iterator[str]:
    """Tables of the keys that only some options have; of options that set keys of other groups, a pointer."""
    if any(catalog.file(group, option).is_global for option in catalog.groups[group]):
        yield fill(f"They set keys of other groups; llmft help={group} {group}=OPTION shows which.")
        return
    options = {option: catalog.keys(group, option) for option in catalog.groups[group]}
    for option, keys in options.items():
        if more := [key for name, key in keys.items() if name not in known]:
            having = [o for o in options if all(key.name in options[o] for key in more)]
            heading = textwrap.fill(f"keys of {group}={', '.join(having)}:", columns())
            yield f"{heading}\n{key_table(collapsed(catalog, command, group, option, more))}"
            known |= {key.name for key in more}


def of_section(catalog: Catalog, command: str, section: str) -> str:
    """The keys of a section of a command, such as ``serve``."""
    keys = [key for name, key in catalog.command(command).keys.items() if name.startswith(f"{section}.")]
    found = described(catalog, command, keys, {})
    return f"{section}, keys of llmft {command}:\n{key_table(found)}\n"


def option_line(catalog: Catalog, group: str, option: str) -> str:
    """The first sentence on an option."""
    return first_sentence(catalog.file(group, option).comment)


def collapsed(catalog: Catalog, command: str, group: str, option: str, keys: Iterable[Key]) -> Iterator[Key]:
    """Keys of an option, described; a complete option that it holds (``data.sets.academic``) is one line."""
    inside = {f"{group}.{d.package}.": d.group or group for d in catalog.file(group, option).defaults if d.package}
    seen = set()
    for key in described(catalog, command, keys, {group: option}):
        above = next((prefix for prefix in inside if key.name.startswith(prefix)), None)
        if above is None:
            yield key
        elif above not in seen:
            seen.add(above)
            yield Key(f"{above}*", "...", f"the keys of {inside[above]}=")


def key_table(keys: Iterable[Key]) -> str:
    """``key=default`` and the comment, in two columns."""
    return two_columns({f"{key.name}={key.default}": key.comment for key in keys}, width=32)
