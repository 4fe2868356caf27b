"""The text of an override in Hydra's grammar: what people type is quoted where the grammar needs it."""

import re
import shlex
from typing import Any

# Keys whose values are free text or paths: Hydra's grammar does not accept commas, quotes and brackets in them.
FREE_TEXT = ("question", "system", "safety.notice", "safety.notice_link")
PATHS = (
    "run",
    "resume",
    "input",
    "output",
    "data.path",
    "data.val_path",
    "data.test_path",
    "data.system",
    "model.path",
    "peft.adapter",
    "peft.distill_from",
    "output_dir",
    "judge.url",
    "runs",
    "to",
    "archive",
    "suite",
    "suite_path",
)
# Sections whose keys the user names: files by a name.
NAMED_PATHS = re.compile(r"data\.(sets\.[^.=]+\.)?extra_val\.[^.=]+")
# One or several lists (of a sweep) without quotes or inner brackets.
LISTS = re.compile(r"\[[^][{}'\"]*\](,\[[^][{}'\"]*\])*")


def quoted(argument: str, *, multirun: bool) -> str:
    """An argument in Hydra's grammar: free text, paths and values with punctuation quoted; ``debug=true`` is an option's name."""
    key, equals, value = argument.partition("=")
    if argument == "debug=true":
        return "debug='true'"
    is_path = key in PATHS or NAMED_PATHS.fullmatch(key.lstrip("+"))
    if NAMED_PATHS.fullmatch(key):  # a new key, which Hydra takes with + alone
        key, argument = f"++{key}", f"++{argument}"
    is_text = key in FREE_TEXT or (is_path and not multirun and not value.startswith(("[", "${")))
    in_quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or key.startswith("-") or value == "null" or in_quotes:
        return argument
    if multirun and "${" in value:
        argument = _with_quoted_interpolations(argument)
    if not is_text:
        return argument if is_readable(argument) else f"{key}={_readable(value, multirun=multirun)}"
    if key in FREE_TEXT:  # free text is never an interpolation
        value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return f"{key}={_in_quotes(value)}"


def _with_quoted_interpolations(argument: str) -> str:
    """An override of a sweep with its interpolations in quotes: Hydra's sweepers escape others, which makes them plain text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "${" not in argument or not is_readable(argument):
        return argument
    override: Any = OverridesParser.create().parse_override(argument)
    swept = override.is_choice_sweep()
    values = override.value().list if swept else [override.value()]
    if not any(_is_interpolation(value) for value in values) or argument.partition("=")[2][:1] in ("'", '"'):
        return argument
    texts = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
    quoted_values = [f"'{v}'" if _is_interpolation(v) else text for v, text in zip(values, texts, strict=True)]
    return f"{argument.partition('=')[0]}={','.join(quoted_values)}"


def _is_interpolation(value: object) -> bool:
    """Whether a parsed value is text with an interpolation that can be put in single quotes."""
    return isinstance(value, str) and "${" in value and not re.search(r"['\\]", value)


def is_readable(argument: str) -> bool:
    """Whether Hydra's grammar accepts an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        OverridesParser.create().parse_override(argument)
    except Exception:  # the parser's errors have no common base
        return False
    return True


def parse_fault(argument: str) -> str | None:
    """Why an override is not accepted by Hydra's grammar, and how to quote it; None if it is."""
    if is_readable(argument):
        return None
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: options are key=value, and the command is the first word"
    as_list = value.startswith("[")
    example = f'{key}=["one","two"]' if as_list else f'{key}="{value.strip(chr(34))}"'
    what = "a list, with its items in quotes" if as_list else "the value in quotes"
    return f"{argument}: is no value that can be read; write {what}: {shlex.quote(example)}"


def _readable(value: str, *, multirun: bool) -> str:
    """A value that Hydra's grammar does not accept, quoted where it is clear what is meant; else as it is."""
    if LISTS.fullmatch(value):
        return re.sub(r"\[([^]]*)\]", lambda found: f"[{','.join(map(_item, found[1].split(',')))}]", value)
    if value[:1] in ("[", "{", "(", "'", '"') or "${" in value or (multirun and "," in value):
        return value
    return _in_quotes(value)


def _item(text: str) -> str:
    return text if is_readable(f"key={text}") else _in_quotes(text.strip())


def _in_quotes(text: str) -> str:
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[-trailing:] if trailing else ''}'"
