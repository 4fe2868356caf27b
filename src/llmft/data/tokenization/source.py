"""Source of a run's prompt template: the tokenizer's own by name, with ``prompt.template_kwargs`` and ``prompt.date`` in it."""

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from llmft.utils.errors import UserError

CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1")


def named_templates(own: str | Mapping[str, str] | None, name: str | None) -> tuple[str | None, str | None]:
    """The chat template of a tokenizer, and the one for conversations with tools if that is another.

    Args:
        own: ``tokenizer.chat_template``: one template, or several by name.
        name: ``prompt.template_name``; None takes ``default``, and ``tool_use`` for conversations with tools.

    Raises:
        UserError: There is no template of this name.
    """
    if not isinstance(own, Mapping):
        if name is not None and (own is None or name != "default"):
            raise UserError(f"prompt.template_name={name}: this tokenizer has no chat templates with names")
        return own, None
    wanted = name or ("default" if "default" in own else next(iter(own)))
    if wanted not in own:
        raise UserError(f"prompt.template_name={name}: there is no such chat template; there are {', '.join(own)}")
    with_tools = None if name else own.get("tool_use")
    return own[wanted], with_tools if with_tools != own[wanted] else None


def with_settings(source: str, kwargs: Mapping[str, Any] | None, day: str | None) -> str:
    """A template with its variables set and its clock stopped, so that every tool that renders it gives the same text.

    Args:
        source: The template.
        kwargs: Values of its variables, unless a caller of ``apply_chat_template`` sets them.
        day: The date that it writes, as ``YYYY-MM-DD``; None for the day on which it is rendered.

    Raises:
        UserError: ``day`` is no date.
    """
    lines = [
        f"{{%- set {key} = {key} if {key} is defined else {_literal(value)} -%}}"
        for key, value in sorted((kwargs or {}).items())
    ]
    if formats := sorted(clock_formats(source)) if day else []:
        cases = [f"{'el' if n else ''}if format == {_literal(f)} -%}}{_at(day, f)}" for n, f in enumerate(formats)]
        lines.append("{%- macro strftime_now(format) -%}{%- " + "{%- ".join(cases) + "{%- endif -%}{%- endmacro -%}")
    return "".join(lines) + source


def clock_formats(source: str) -> set[str]:
    """The formats of the dates that a template writes."""
    return {match.group(2) for match in CLOCK.finditer(source)}


def clock_is_stopped(source: str) -> bool:
    """Whether a template has its date from ``with_settings``."""
    return "macro strftime_now(" in source


def clock_now(source: str) -> list[str]:
    """What the clock of a template shows now; empty if it has none."""
    if clock_is_stopped(source):
        return []
    return [datetime.now().strftime(form) for form in sorted(clock_formats(source))]


def _at(day: str | None, form: str) -> str:
    try:
        return date.fromisoformat(str(day)).strftime(form)
    except ValueError:
        raise UserError(f"prompt.date={day}: must be a date such as 2026-11-29") from None


def _literal(value: Any) -> str:
    """A value as Jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
