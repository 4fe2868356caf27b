"""JSON Schemas of the config, rendered from its pydantic models: for editors, and for a complete config.

There are two renderings. In that of a YAML file nothing is required, and Hydra's ``defaults``, ``???`` and ``${...}`` are
accepted; the models of a union are merged into one object, since editors complete best so. In that of a complete config,
such as the ``config.yaml`` of a run, all keys are required.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic.fields import FieldInfo

from llmft.config.groups import command_config, group_files, group_values
from llmft.config.json_values import Json, accepts_references, either, tidy
from llmft.config.schema import COMMANDS, Section
from llmft.config.schema.callbacks import KNOWN, Callback, Logger
from llmft.config.schema.generation import Generation
from llmft.config.schema.section import adapter, fields_by_key, sections_of, values_of
from llmft.config.schema.types import Replaced
from llmft.utils.files import atomic_write

DRAFT = "http://json-schema.org/draft-07/schema#"
REFERENCE = {"$ref": "#/$defs/reference"}
ENTRY = {"type": ["string", "boolean", "array", "null"]}
INJECTED = ("params", "_ignore_param")  # arguments that come from the code, or are not meant to be given
# Groups whose files set keys of other groups (``# @package _global_``).
GLOBAL = ("experiment", "debug")


def schemas() -> dict[str, Json]:
    """All JSON Schemas by their file name without ``.json``.

    There is one for each group (``data``), one for the YAML file of each command (``train``), ``experiment`` for files that
    set keys of several groups, ``hydra`` for options of Hydra's own groups, and one for the complete config of each command
    (``complete/train``).
    """
    train = fields_by_key(COMMANDS["train"]) | fields_by_key(COMMANDS["serve"])
    groups = [group for group in group_files() if group not in GLOBAL and "/" not in group]
    found = {group: _file(_value(train[group], group_values(group)), group) for group in groups}
    for name, command in COMMANDS.items():
        found[name] = _file(_object([command], _values(name)) | {"description": _sentence(command)})
        complete = _object([command], {}, complete=True) | {"description": f"{_sentence(command)} The complete config."}
        found[f"complete/{name}"] = {"$schema": DRAFT, **complete}
    found["experiment"] = found["train"] | {"description": "Settings of a training, of any group."}
    found["hydra"] = _file({"type": "object", "description": "Arguments of a launcher or a sweeper."})
    return found


def write(found: Mapping[str, Json], folder: Path) -> None:
    """Write schemas to ``NAME.json`` in a folder."""
    for name, schema in found.items():
        file = folder / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, f"{json.dumps(schema, indent=0, ensure_ascii=False)}\n")


def _file(shape: Json, group: str = "") -> Json:
    """The schema of a YAML file of a group, or of one outside of groups, with the keys that Hydra reads."""
    own = shape.get("properties", {}) | {"defaults": _defaults_list(group)}
    if not group:
        own["hydra"] = {"type": "object", "description": "Hydra's own config, such as hydra.sweeper.params."}
    reference = {"type": "string", "pattern": r"\$\{.+\}|^\?\?\?$"}
    return {"$schema": DRAFT, **shape, "properties": own, "$defs": {"reference": reference}}


def _defaults_list(group: str) -> Json:
    """The schema of a defaults list, which names the files of a group, or the options of each group."""
    files = group_files()
    names = ["_self_", *(file.stem for file in files.get(group, []))]
    options = {name: [file.stem for file in found if file.stem[0] != "_"] for name, found in files.items()}
    prefix = "/" if group else "override /"
    known = {prefix + name: {"anyOf": [{"enum": found}, ENTRY]} for name, found in options.items() if name != group}
    other = r"^(optional |override )*/?[\w/]+(@[\w.]+)?$"
    entry = {"type": "object", "maxProperties": 1, "additionalProperties": False, "patternProperties": {other: ENTRY}}
    item = {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"^(optional )?[\w./@-]+$"}]}
    return {
        "description": "Hydra's defaults list: files that this one builds on, and options of other groups.",
        "type": "array",
        "items": either([item, entry | {"properties": known}]),
    }


def _values(command: str) -> Json:
    """The defaults of a command's keys, and of the groups that it has."""
    groups = [group for group in fields_by_key(COMMANDS[command]) if group in group_files()]
    return {group: group_values(group) for group in groups} | command_config(command)


def _sentence(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _object(kinds: Sequence[type[Section]], values: Mapping[str, Any], *, complete: bool = False) -> Json:
    """The keys of some sections in one object; ``values`` are the defaults, by key."""
    fields: dict[str, list[FieldInfo]] = {}
    for kind in kinds:
        for key, field in fields_by_key(kind).items():
            fields.setdefault(key, []).append(field)
    properties = {key: _key(key, found, values, complete=complete) for key, found in fields.items()}
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    if complete:
        everywhere = [key for key, found in fields.items() if len(found) == len(kinds)]
        shape["required"] = [key for key in everywhere if fields[key][0].is_required()]
    return shape | _further_keys(kinds, values, properties, complete=complete)


def _further_keys(
    kinds: Sequence[type[Section]], values: Mapping[str, Any], properties: Json, *, complete: bool
) -> Json:
    """Which keys besides the fields an object may have: arguments of its class, or settings of ``GenerationConfig``.

    A class of the user's own may have any; the arguments of shipped ones are known.
    """
    if all(kind.model_config.get("extra") != "allow" for kind in kinds):
        return {}
    if complete:
        return {"additionalProperties": True}
    if issubclass(kinds[0], Generation):
        from transformers import GenerationConfig  # takes a second

        settings = sorted(name for name in vars(GenerationConfig()) if not name.startswith("_"))
        more = {"description": "A setting of transformers' GenerationConfig."}
        return {"properties": dict.fromkeys(settings, more) | properties}
    targets = [*dict.fromkeys(["???", *values.get("_target_", [])])]
    known, anything = _arguments(targets)
    if anything:
        return {"additionalProperties": True, "properties": known | properties}
    # not `propertyNames`, whose message in an editor lists all of them
    names = {"properties": {key: {} for key in [*properties, *known, "defaults"]}, "additionalProperties": False}
    shipped = {"if": {"properties": {"_target_": {"enum": targets}}}, "then": names}
    return {"additionalProperties": True, "properties": known | properties, **shipped}


def _arguments(targets: Iterable[str]) -> tuple[Json, bool]:
    """Arguments of classes of other packages, each with a description, and whether one of them takes any argument."""
    import inspect

    from hydra.utils import get_object

    known, anything = {}, False
    for target in targets:
        if target.startswith("llmft.") or target == "???":
            continue  # all of them are fields
        parameters = inspect.signature(get_object(target)).parameters
        anything |= any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        known |= {name: {"description": f"Argument of {target}."} for name in parameters if name not in INJECTED}
    return known, anything


def _key(key: str, fields: Sequence[FieldInfo], values: Mapping[str, Any], *, complete: bool) -> Json:
    """The schema of a key that one or more sections have."""
    default = values.get(key)
    shapes = [_value(field, default, complete=complete) for field in fields]
    shape = either([s for i, s in enumerate(shapes) if s not in shapes[:i]])
    replaced = [] if complete else [{"const": m.value} for f in fields for m in f.metadata if isinstance(m, Replaced)]
    shape = either([shape, *replaced])
    if not complete and not accepts_references(shape):
        shape = either([shape, REFERENCE])
    of_section = shapes[0].pop("description", None)
    sentence = fields[0].description or of_section
    about: Json = {"description": sentence} if sentence else {}
    if (
        not complete
        and key in values
        and default != "???"
        and not key.startswith("_")
        and not isinstance(default, dict)
    ):
        about["default"] = default
    return about | shape


def _value(field: FieldInfo, default: Any, *, complete: bool = False) -> Json:
    """The schema of the values of a field."""
    inner = values_of(field.annotation)
    values = default if isinstance(default, dict) else {}
    if inner is not None:
        return _mapping(inner, values, complete=complete)
    if kinds := list(dict.fromkeys(sections_of(field.annotation).values())):
        shape = _object(kinds, values, complete=complete) | {"description": _sentence(kinds[0])}
        return either([shape, {"type": "null"}]) if NoneType in get_args(field.annotation) else shape
    plain = adapter(field).json_schema()
    return tidy(plain, plain.get("$defs", {}))


def _mapping(inner: Any, values: Mapping[str, Any], *, complete: bool) -> Json:
    """The schema of a mapping of names to sections, such as ``callbacks``: by name those that conf/ has."""
    kinds = list(dict.fromkeys(sections_of(inner).values()))
    if not issubclass(kinds[0], Callback | Logger):
        shape = _object(kinds, {}, complete=complete)
        return {"type": "object", "additionalProperties": either([shape, {"type": "null"}])}
    named = {}
    for name, node in values.items():
        if name != "_target_":
            kind = KNOWN.get(node["_target_"], kinds[0])
            shape = _object([kind], node | {"_target_": [node["_target_"]]}, complete=complete)
            named[name] = {"description": _sentence(kind)} | either([shape, {"type": "null"}])
    other = {"type": ["object", "null"], "required": ["_target_"]}
    return {"type": "object", "properties": named, "additionalProperties": other}
