"""The schema and conf/ hold together; any value of a key is valid, or refused with a message."""

import copy
import functools
import json
import math
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft7Validator
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic.fields import FieldInfo

from llmft.config.groups import group_config
from llmft.config.paths import conf_dir
from llmft.config.schema import COMMANDS, Section, TrainConfig
from llmft.config.schema.callbacks import Logger
from llmft.config.schema.model import Prompt
from llmft.config.schema.section import TargetSection, accepts, fields_by_key, section_of, sections_of, values_of
from llmft.config.validate import check
from llmft.utils.errors import UserError
from tests.conftest import composed
from tests.unit.config.test_validate import OPTIONS

# Options of train that have keys of their own, in few configs.
CONFIGS = (
    (),
    ("peft=unfreeze", "judge=ollama", "scheduler=plateau", "optim=adamw_8bit", "generation=sample"),
    ("peft=head", "judge=model", "data=custom", "model=tiny_t5"),
    ("data=mix", "logger=wandb", "judge=openai"),
)


def sections(
    config: Any, schema: type[Section], above: str = ""
) -> Iterator[tuple[str, type[Section], dict[str, Any]]]:
    """Each section of a config: its key, its class and its values."""
    yield above, schema, config
    fields = fields_by_key(schema)
    for key, value in config.items():
        if not isinstance(value, dict) or key not in fields:
            continue
        field, name = fields[key], f"{above}.{key}".lstrip(".")
        if (inner := values_of(field.annotation)) is not None:
            for child, node in value.items():
                if isinstance(node, dict) and (kind := section_of(inner, node)):
                    yield from sections(node, kind, f"{name}.{child}")
        elif kind := section_of(field.annotation, value, field.metadata):
            yield from sections(value, kind, name)


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def every_section() -> Iterator[tuple[str, type[Section], dict[str, Any]]]:
    """Of the default config of each command, and of each option of its groups."""
    for command, schema in COMMANDS.items():
        yield from sections(plain(composed(command=command)), schema)
    for options in CONFIGS:
        yield from sections(plain(composed(*options)), TrainConfig)
    fields = fields_by_key(TrainConfig) | fields_by_key(COMMANDS["serve"])
    for group, option in OPTIONS:
        values: Any = OmegaConf.to_container(group_config(group, option), resolve=False)
        # the files of mix and model hold options of other groups; they are in CONFIGS
        kind = section_of(fields[group].annotation, values, fields[group].metadata) if group in fields else None
        if kind and option not in ("mix", "model"):
            yield from sections(values, kind, group)


@pytest.fixture(scope="module")
def found() -> list[tuple[str, type[Section], dict[str, Any]]]:
    return list(every_section())


def test_every_key_of_conf_is_a_field_and_every_required_field_has_a_value(found):
    for name, kind, values in found:
        fields = fields_by_key(kind)
        unknown = [] if kind is Logger else values.keys() - fields.keys()
        missing = {key for key, field in fields.items() if field.is_required()} - values.keys()
        assert (name, sorted(unknown), sorted(missing)) == (name, [], [])


def test_no_field_has_a_default_but_those_that_are_absent_somewhere(found):
    optional = {
        (kind, key) for _, kind, _ in found for key, field in fields_by_key(kind).items() if not field.is_required()
    }
    optional -= {
        (Prompt, key) for key in ("template_name", "template_kwargs", "date")
    }  # a user's own prompt may lack them
    assert all(fields_by_key(kind)[key].default is None for kind, key in optional)
    absent = {(kind, key) for _, kind, values in found for key in fields_by_key(kind).keys() - values.keys()}
    # arguments of a class that a user's own may lack
    absent |= {(kind, key) for kind, key in optional if issubclass(kind, TargetSection)}
    assert {(kind.__name__, key) for kind, key in optional - absent} == set()


def test_every_key_has_a_sentence(found):
    for kind in {kind for _, kind, _ in found}:
        for key, field in fields_by_key(kind).items():
            if not sections_of(field.annotation) and values_of(field.annotation) is None:
                assert (field.description or "").endswith("."), (kind, key)


# --- any value ----------------------------------------------------------------------------------------------------------


base = functools.cache(composed)


@functools.cache
def keys(options: tuple[str, ...]) -> dict[str, FieldInfo]:
    """The fields of all keys of a config of train, by dotted key."""
    return {
        f"{above}.{key}".lstrip("."): field
        for above, kind, values in sections(plain(base(*options)), TrainConfig)
        for key, field in fields_by_key(kind).items()
        if key in values and not key.startswith("_") and above not in ("model", "judge.model")
    }


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["off", "auto", "val/loss", "1e-3", "a/b", "../x", "~", "${seed}", "???", "\0", "ünïcode", "{a: 1}"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(str.isidentifier), inner, max_size=2),
    max_leaves=4,
)


def of_type(annotation: Any, bounds: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values of a type, most of which keep to its bounds."""
    origin, arguments, bounds = get_origin(annotation), get_args(annotation), bounds or {}
    if origin is Annotated:
        constraints = [c for m in arguments[1:] for c in getattr(m, "metadata", [])]
        named = {k: getattr(c, k) for c in constraints for k in ("ge", "gt", "le", "lt", "pattern") if hasattr(c, k)}
        return of_type(arguments[0], bounds | named)
    if origin in (Union, UnionType):
        return st.one_of(*(of_type(part, bounds) for part in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXTS.filter(str.isidentifier), of_type(arguments[1]), max_size=2)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if annotation is int:
        near = st.integers(-3, 4).map(lambda n: n + math.ceil(low or 0))
        return near | st.integers(low and math.ceil(low), high and math.floor(high))
    if annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    pattern = bounds.get("pattern")
    if annotation is str:
        return TEXTS if pattern in (None, r"^[^\x00]+$") else st.from_regex(pattern, fullmatch=True)
    return {bool: st.booleans(), NoneType: st.none()}.get(annotation, ANYTHING)


@st.composite
def settings_of_train(draw: Any, *, valid: bool) -> tuple[tuple[str, ...], str, Any]:
    """Options, a key of them, and a value that its field accepts, or one that it does not."""
    options = draw(st.sampled_from(CONFIGS))
    found = keys(options)
    key = draw(st.sampled_from(sorted(found)))
    field = found[key]
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[annotation, field]
    value = draw(of_type(annotation) if valid else ANYTHING)
    assume(accepts(field, value) == valid)
    return options, key, value


def checked_with(options: tuple[str, ...], key: str, value: Any) -> str:
    """The message of the check of a config; empty if it is valid. A value may hold what is only resolved when it is read."""
    config = copy.deepcopy(base(*options))
    try:
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except OmegaConfBaseException:  # an interpolation that cannot be parsed
        reject()
    try:
        check(config, TrainConfig)
    except UserError as error:
        return str(error)
    return ""


EDITOR = Draft7Validator(json.loads((conf_dir() / ".schema" / "experiment.json").read_text()))
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
MANY = settings(FEW, max_examples=1000)


def refused_or_valid(case: tuple[tuple[str, ...], str, Any]) -> None:
    message = checked_with(*case)
    assert message == "" or ":" in message


def refused(case: tuple[tuple[str, ...], str, Any]) -> None:
    _, key, value = case
    assume(not any(mark in json.dumps(value, default=str) for mark in ("$", "???")))  # they have other messages
    message = checked_with(*case)
    assert key in message
    # a mapping may lack keys, or have other ones
    assert re.search(f"{re.escape(key)}.*: must be|(is|are) missing|no such key", message, re.DOTALL)


@FEW
@given(settings_of_train(valid=True))
def test_a_value_of_the_right_type_is_valid_or_refused_by_a_rule_with_its_reason(case):
    refused_or_valid(case)


@FEW
@given(settings_of_train(valid=False))
def test_a_value_of_a_wrong_type_is_refused_with_its_key_and_what_it_must_be(case):
    refused(case)


def test_a_list_in_place_of_a_section_is_refused():
    assert "judge=[1]: must be a mapping" in checked_with((), "judge", [1])


@settings(FEW, max_examples=200)
@given(settings_of_train(valid=True))
def test_an_editor_accepts_every_value_that_the_schema_accepts(case):
    _, key, value = case
    for part in reversed(key.split(".")):
        value = {part: value}
    assert EDITOR.is_valid(value)


@pytest.mark.slow
@MANY
@given(settings_of_train(valid=True))
def test_many_values_of_the_right_type(case):
    refused_or_valid(case)


@pytest.mark.slow
@MANY
@given(settings_of_train(valid=False))
def test_many_values_of_a_wrong_type(case):
    refused(case)
