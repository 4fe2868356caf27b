"""``Section``: base of the typed config; a section is a mapping of the config, and its fields are the keys."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from llmft.config.schema.types import Must


class Section(BaseModel):
    """A mapping of the config with typed keys.

    Values are never converted (``strict``), unknown keys are refused, and there are no defaults: they are in ``conf/``.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True, protected_namespaces=())

    def node(self) -> dict[str, Any]:
        """The section as plain data, with the keys of the YAML file; for ``hydra.utils.instantiate`` and OmegaConf."""
        # by the class of the value: pydantic would dump a member of a union as its first class
        return self.model_dump(by_alias=True, exclude_unset=True, serialize_as_any=True)

    def select(self, key: str) -> Any:
        """The value of a dotted key below this section; None if an option does not have it."""
        found: Any = self
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else getattr(found, part.strip("_"), None)
        return found

    def replaced(self, values: Mapping[str, Any]) -> Self:
        """A validated copy with other values.

        Args:
            values: By dotted key below this section, such as ``data.batch_size``.
        """
        data = self.node()
        for key, value in values.items():
            *above, name = key.split(".")
            parent = data
            for part in above:
                parent = parent[part]
            parent[name] = value
        return type(self).model_validate(data)


class TargetSection(Section):
    """A section that instantiates a class; keys that are not fields are further arguments of the class.

    Attributes:
        target: Import path of the class (``_target_``).
        partial: Whether Hydra makes a ``functools.partial`` (``_partial_``).
    """

    model_config = ConfigDict(extra="allow")
    target: str = Field(alias="_target_", description="Class or function that is instantiated.")
    partial: bool | None = Field(None, alias="_partial_", description="Leave the call to llmft, which adds arguments.")
    convert: str | None = Field(None, alias="_convert_", description="Whether Hydra converts nested values.")


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("not accepted")
    return value


class NotNull(BeforeValidator):
    """Refuses null, in JSON Schemas too."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Pydantic's hook."""
        found = handler(core)
        parts = [part for part in found["anyOf"] if part != {"type": "null"}]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}


NOT_NULL = NotNull(_not_null)
T = TypeVar("T")
# A key that only some options of a group have: None where it is absent, but it cannot be set to null.
Absent = Annotated[T | None, NOT_NULL]


def absent(description: str) -> Any:
    """The ``Field`` of an ``Absent`` key."""
    return Field(None, description=description)


def sections_of(annotation: Any) -> dict[str, type[Section]]:
    """The section classes of a field's type by their tags in a discriminated union; empty for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {"": annotation}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        tags = [m.tag for m in arguments[1:] if isinstance(m, Tag)]
        found = sections_of(arguments[0])
        return dict.fromkeys(tags, found[""]) if tags else found
    if origin in (Union, UnionType):
        return {tag: found for part in arguments for tag, found in sections_of(part).items()}
    return {}


def section_of(annotation: Any, value: object, metadata: Sequence[Any] = ()) -> type[Section] | None:
    """The section class that a value of a field is validated with; None for a plain value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return section_of(arguments[0], value, arguments[1:])
    for discriminator in metadata:
        if isinstance(discriminator, Discriminator) and callable(discriminator.discriminator):
            return sections_of(annotation)[str(discriminator.discriminator(value))]
    if origin in (Union, UnionType):
        return next((found for part in arguments if (found := section_of(part, value))), None)
    return sections_of(annotation).get("")


def values_of(annotation: Any) -> Any:
    """The type of the values of a ``dict`` field whose values are sections; None for other fields."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    return arguments[1] if origin is dict and sections_of(arguments[1]) else None


def key_of(name: str, field: FieldInfo) -> str:
    """The key of a field in YAML."""
    return field.alias or name


def fields_by_key(section: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys."""
    return {key_of(name, field): field for name, field in section.model_fields.items()}


def adapter(field: FieldInfo) -> TypeAdapter[Any]:
    """Validates a value of a key by itself."""
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[annotation, *field.metadata]
    return TypeAdapter(annotation)


def accepts(field: FieldInfo, value: object) -> bool:
    """Whether a value of a key is valid by itself."""
    try:
        adapter(field).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def must(field: FieldInfo) -> str:
    """The valid values of a field in words; completes "must be ..."."""
    return _in_words(field.annotation, field.metadata)


def choices(annotation: Any) -> list[Any]:
    """The values of a type that has only some: of literals and booleans."""
    return list(_choices(annotation))


def _choices(annotation: Any) -> Iterator[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _choices(arguments[0])
    elif origin in (Union, UnionType):
        for part in arguments:
            yield from _choices(part)
    elif origin is Literal:
        yield from arguments
    elif annotation is bool:
        yield from (True, False)


WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a mapping",
    NoneType: "null",
}


def _in_words(annotation: Any, metadata: Any = ()) -> str:
    if found := [m.text for m in metadata if isinstance(m, Must)]:
        return found[-1]
    origin, arguments = get_origin(annotation), list(get_args(annotation))
    if NOT_NULL in metadata:
        arguments = [part for part in arguments if part is not NoneType]
    if origin is Annotated:
        return _in_words(arguments[0], arguments[1:])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin in (Union, UnionType):
        parts = list(dict.fromkeys(_in_words(part) for part in arguments))
        if len(parts) == 1:
            return parts[0]
        separator = " or " if all(len(part.split()) <= 2 for part in parts) else ", or "
        return f"{', '.join(parts[:-1])}{separator}{parts[-1]}"
    if found := sections_of(annotation):
        return "a mapping with _target_" if all(issubclass(s, TargetSection) for s in found.values()) else "a mapping"
    return WORDS.get(origin or annotation, "valid")
