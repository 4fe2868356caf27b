"""Tool calls and tool schemas of a row, as JSON texts: stored so, no null of another row's fields gets into them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.data.records import RowError, checked_text, shown, value_of


def call_texts(calls: object, place: str) -> tuple[str, ...]:
    """The calls of an assistant turn, each as JSON text, in the order of their keys; numbers are written as Python does.

    Args:
        calls: A call or a list of calls, as objects or as JSON text. A call is ``{"name", "arguments"}``, or has these in
            ``function``; arguments are an object, or a text that is one (which stays as it is).
        place: For the error message.

    Raises:
        RowError: It is none of these; names the call.
    """
    listed, names = _listed(calls, place)
    return tuple(_call(call, name) for call, name in zip(listed, names, strict=True))


def tool_texts(tools: object, place: str) -> tuple[str, ...]:
    """The tools that the assistant may call, each as JSON text of ``{"type": "function", "function": {...}}``.

    Args:
        tools: A list of schemas, as objects or as JSON text, with or without ``function`` around them; None or empty for none.
        place: For the error message.

    Raises:
        RowError: It is none of these; names the tool.
    """
    if tools is None or (isinstance(tools, str) and not tools.strip()):
        return ()
    listed, names = _listed(tools, place)
    return tuple(_tool(tool, name) for tool, name in zip(listed, names, strict=True))


def _call(call: Mapping[str, Any], place: str) -> str:
    function, inner = (call["function"], f"{place}.function") if "function" in call else (call, place)
    checked_text(value_of(function, "name", inner), f"{inner}.name")
    arguments = value_of(function, "arguments", inner)
    if isinstance(arguments, str) and arguments.strip():
        _parsed(arguments, f"{inner}.arguments", Mapping)
    elif not isinstance(arguments, Mapping | str):
        raise RowError(f"{inner}.arguments", f"must be an object, or a text that is one, got {shown(arguments)}")
    return _text(call, place)


def _tool(tool: Mapping[str, Any], place: str) -> str:
    if "function" in tool:
        checked_text(value_of(tool["function"], "name", f"{place}.function"), f"{place}.function.name")
        return _text(tool, place)
    checked_text(value_of(tool, "name", place), f"{place}.name")
    return _text({"type": "function", "function": tool}, place)


def _listed(value: object, place: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Objects and their places, of one object or a list of them, either of which may be JSON text."""
    if isinstance(value, str):
        value = _parsed(value, place, Mapping | Sequence)
    if isinstance(value, Mapping):
        return [value], [place]
    if not isinstance(value, Sequence):
        raise RowError(place, f"must be an object or a list of objects, got {shown(value)}")
    names = [f"{place}[{number}]" for number in range(len(value))]
    listed = [_parsed(v, name, Mapping) if isinstance(v, str) else v for v, name in zip(value, names, strict=True)]
    for entry, name in zip(listed, names, strict=True):
        if not isinstance(entry, Mapping):
            raise RowError(name, f"must be an object, got {shown(entry)}")
    return listed, names


def _parsed(text: str, place: str, kind: Any) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError(place, f"must be JSON ({getattr(error, 'msg', error)}), got {shown(text)}") from None
    if not isinstance(value, kind) or isinstance(value, str):
        raise RowError(place, f"must be JSON of an object, got {shown(text)}")
    return value


def _text(value: Mapping[str, Any], place: str) -> str:
    try:
        return checked_text(json.dumps(value, ensure_ascii=False, allow_nan=False), place)
    except (TypeError, ValueError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(place, f"cannot be written as JSON ({error})") from None
