"""From a composed config to its typed form, with an error message for each invalid key."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import ValidationError

from llmft.config.schema.section import Section, fields_by_key, must, section_of, values_of
from llmft.utils.text import did_you_mean, first_line

C = TypeVar("C", bound=Section)
MISSING = "is missing: "  # prefix of a message until all missing keys of a section are known


class Typed(NamedTuple, Generic[C]):
    """A typed config.

    Attributes:
        config: The config; if ``faults`` is not empty, the invalid keys hold what was given, and missing ones nothing.
        faults: Error messages by dotted key; empty for a key whose value depends on a reported one.
    """

    config: C
    faults: dict[str, str]

    @property
    def messages(self) -> list[str]:
        """The error messages."""
        return [message for message in self.faults.values() if message]


def typed(cfg: DictConfig, schema: type[C], name: str = "") -> Typed[C]:
    """The typed form of a config or of one of its sections.

    Args:
        cfg: A composed config; interpolations are resolved.
        schema: Its model, such as ``TrainConfig``.
        name: The key of the section, for messages.
    """
    faults: dict[str, str] = {}
    plain = _resolved(cfg, name, faults)
    try:
        return Typed(schema.model_validate(plain), faults)
    except ValidationError as error:
        explained = [_explain(schema, plain, d["loc"], name) for d in error.errors(include_url=False)]
        faults = {**dict(explained), **faults}
    return Typed(_unchecked(schema, plain), _with_missing_keys_in_one(faults))


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain data, without the keys that cannot be resolved (``typed`` reports them)."""
    return _resolved(cfg, "", {})


def _resolved(node: DictConfig | ListConfig, path: str, faults: dict[str, str]) -> Any:
    """Plain data with interpolations resolved; keys that cannot be resolved are left out and reported."""
    if isinstance(node, ListConfig):
        return [value for i in range(len(node)) for value in _value(node, i, f"{path}.{i}", faults)]
    found = ((key, _value(node, key, f"{path}.{key}".lstrip("."), faults)) for key in node)
    return {key: value for key, values in found for value in values}


def _value(node: Any, key: Any, name: str, faults: dict[str, str]) -> list[Any]:
    """The resolved value of a key, in a list; an empty list if it cannot be resolved."""
    if OmegaConf.is_missing(node, key):
        faults[name] = f"{name}: must be set"
        return []
    try:
        value = node[key]
    except InterpolationToMissingValueError:  # the key that it refers to is reported
        faults[name] = ""
        return []
    except OmegaConfBaseException as error:
        faults[name] = f"{name}: {first_line(error)}"
        return []
    return [_resolved(value, name, faults) if isinstance(value, DictConfig | ListConfig) else value]


def _explain(schema: type[Section], plain: Any, location: Sequence[int | str], above: str) -> tuple[str, str]:
    """The key of a pydantic error, and our message; pydantic's location goes on below the key for unions and lists."""
    names = [above] if above else []
    value, words, values = plain, "a mapping", None
    section: type[Section] | None = schema
    for part in (p for p in location if not _is_tag(p)):
        names.append(str(part))
        if section is None:  # the values of a mapping of sections
            annotation, metadata, words = values, (), "null or a mapping with _target_"
        elif (field := fields_by_key(section).get(str(part))) is None:
            return _unknown(names, fields_by_key(section))
        else:
            annotation, metadata, words = field.annotation, field.metadata, must(field)
        if part not in value:
            return _missing(names, words)
        value, values = value[part], values_of(annotation)
        section = None if values else section_of(annotation, value, metadata)
        if not isinstance(value, Mapping) or not (values or section):
            break
    key = ".".join(names)
    return key, f"{key}={value}: must be {words}"


def _is_tag(part: int | str) -> bool:
    """Whether a part of pydantic's location is the tag of a discriminated union."""
    return isinstance(part, str) and part.startswith("<")


def _unknown(names: list[str], known: Iterable[str]) -> tuple[str, str]:
    key = ".".join(names)
    return key, f"{key}: no such key.{did_you_mean(key, ('.'.join([*names[:-1], name]) for name in known))}"


def _missing(names: list[str], words: str) -> tuple[str, str]:
    key = ".".join(names)
    if names[-1] == "_target_":
        return key, f"{key.removesuffix('._target_')}: must be null or a mapping with _target_"
    return key, f"{MISSING}{words}"


def _with_missing_keys_in_one(faults: dict[str, str]) -> dict[str, str]:
    """The faults with one message for all missing keys of a section."""
    sections: dict[str, list[str]] = {}
    for key, message in faults.items():
        if message.startswith(MISSING):
            sections.setdefault(key.rpartition(".")[0], []).append(key)
    for above, keys in sections.items():
        if len(keys) == 1:
            faults[keys[0]] = f"{keys[0]}: is missing; it must be {faults[keys[0]].removeprefix(MISSING)}"
        else:
            names = ", ".join(key.rpartition(".")[2] for key in keys)
            faults |= dict.fromkeys(keys, "") | {keys[0]: f"{above or 'config'}: keys are missing: {names}"}
    return faults


def _unchecked(schema: type[C], plain: Mapping[str, Any]) -> C:
    """A config as its type, without validation: rules about the keys that are valid can still be checked."""
    values: dict[str, Any] = {}
    absent: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        key = field.alias or name
        if key not in plain:
            if not field.is_required():
                absent[name] = field.default
            continue
        value = plain[key]
        if inner := values_of(field.annotation):
            items = value.items() if isinstance(value, Mapping) else ()
            value = {k: _unchecked(s, v) for k, v in items if (s := section_of(inner, v)) and isinstance(v, Mapping)}
        elif isinstance(value, Mapping) and (section := section_of(field.annotation, value, field.metadata)):
            value = _unchecked(section, value)
        values[name] = value
    if schema.model_config.get("extra") == "allow":
        known = fields_by_key(schema)
        values |= {key: value for key, value in plain.items() if key not in known}
    return schema.model_construct(_fields_set=set(values), **values, **absent)
