"""What the schema says about keys: a sentence, the valid values in words, and the choices."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from llmft.config.help.catalog import LOADER, Catalog, Key, first_sentence
from llmft.config.schema import COMMANDS
from llmft.config.schema.section import Section, choices, fields_by_key, must, section_of, values_of
from llmft.utils.text import as_yaml

# Types that the default or the sentence shows.
OBVIOUS = ("", "a string", "a string or null", "true or false", "valid", "a mapping")
LONGEST = 70  # characters of a type in words; longer ones are for error messages


class Fact(NamedTuple):
    """A key in the schema: its sentence, its valid values in words, and its choices as in YAML."""

    sentence: str
    values: str
    choices: list[str]


def described(
    catalog: Catalog, command: str, keys: Iterable[Key], options: Mapping[str, str], *, types: bool = True
) -> list[Key]:
    """Keys with their sentence and valid values as comment; a key without a schema keeps its comment.

    Args:
        catalog: Of all configs.
        command: E.g. ``train``.
        keys: Of this command.
        options: The option of each group that the keys come from.
        types: Name the type of keys without choices too.
    """
    known, found = facts(catalog, command, options), []
    for key in keys:
        if (fact := known.get(key.name)) is None:
            found.append(key)
            continue
        values = fact.values if len(fact.values) <= LONGEST else " | ".join(fact.choices)
        shown = f" [{values}]" if values not in OBVIOUS and (types or fact.choices) else ""
        found.append(key._replace(comment=f"{fact.sentence}{shown}"))
    return found


def facts(catalog: Catalog, command: str, options: Mapping[str, str]) -> dict[str, Fact]:
    """The keys of a command, with those of some groups, by dotted name.

    Args:
        catalog: Of all configs.
        command: E.g. ``train``.
        options: An option for each of these groups.
    """
    if command not in COMMANDS:
        return {}
    keys = list(catalog.all_keys("", command).values())
    for group, option in options.items():
        keys += catalog.all_keys(group, option).values()
    return dict(_facts(COMMANDS[command], nested(keys), ""))


def all_facts(catalog: Catalog) -> dict[str, dict[str, tuple[str, list[str]]]]:
    """Sentence and choices of each key, by command; with the keys of all options."""
    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for command in COMMANDS:
        groups = [group for group in catalog.command(command).groups if group in catalog.groups]
        chosen = [{}, *({group: option} for group in groups for option in catalog.groups[group])]
        all_of = {name: fact for options in chosen for name, fact in facts(catalog, command, options).items()}
        found[command] = {name: (first_sentence(fact.sentence), fact.choices) for name, fact in all_of.items()}
    return found


def nested(keys: Iterable[Key]) -> dict[str, Any]:
    """Keys as a config."""
    root: dict[str, Any] = {}
    for key in keys:
        *above, name = key.name.split(".")
        node = root
        for part in above:
            node = node.setdefault(part, {})
        # "..." is a text or list of several lines; S506: a safe loader
        node[name] = key.default if key.default == "..." else yaml.load(key.default, Loader=LOADER)  # noqa: S506
    return root


def _facts(section: type[Section], node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Fact]]:
    fields = fields_by_key(section)
    for key, value in node.items():
        if (field := fields.get(key)) is None:
            continue
        name = f"{above}{key}"
        inner = section_of(field.annotation, value, field.metadata)
        if inner is not None and isinstance(value, dict):
            yield from _facts(inner, value, f"{name}.")
        elif (kind := values_of(field.annotation)) is not None and isinstance(value, dict):
            for child, content in value.items():
                if isinstance(content, dict) and (inner := section_of(kind, content)) is not None:
                    yield from _facts(inner, content, f"{name}.{child}.")
        else:
            words = must(field)
            listed = [as_yaml(choice) for choice in choices(field.annotation)]
            if words.startswith("one of "):
                words = " | ".join([*listed, *["null"] * words.endswith("null")])
            yield name, Fact(field.description or "", words, listed if len(listed) > 1 else [])
