"""Chat messages -> turns: the keys and roles of OpenAI, ShareGPT and their descendants, each used, or refused by place."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmft.data.records import Row, RowError, Turn, checked_text, shown, value_of
from llmft.data.tool_calls import call_texts

ROLES = ("system", "developer", "user", "assistant", "tool")
# A turn of one of these roles holds calls in the place of a text.
CALL_ROLES = ("function_call", "tool_call")
OTHER_NAMES = {
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model", *CALL_ROLES), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
REASONING = ("reasoning_content", "reasoning", "thinking")
SYSTEM = ("system", "developer")


def turns_of(messages: object, field: str = "messages") -> tuple[Turn, ...]:
    """Chat messages as turns: an optional system turn, then user and assistant alternating, assistant last.

    Tool turns follow an assistant turn, and an assistant turn follows them. Messages may have ``role`` and ``content``, or
    ShareGPT's ``from`` and ``value``; the list may be JSON text.

    Raises:
        RowError: The list, an entry, a role or the order is wrong; names the entry.
    """
    messages = as_list(messages)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RowError(field, f"must be a list of turns, got {shown(messages)}")
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        place = f"{field}[{number}]"
        turn, is_call = _turn(message, place)
        if is_call and turns and turns[-1].role == "assistant":
            turns[-1] = _joined(turns[-1], turn, place)
            continue
        _check_order(turns[-1] if turns else None, turn, place)
        turns.append(turn)
    if turns[-1].role != "assistant":
        raise RowError(f"{field}[{len(messages) - 1}].role", f"the last turn must be assistant, got {turns[-1].role}")
    return tuple(turns)


def as_list(messages: object) -> object:
    """Messages that are JSON text, as CSV and Parquet columns hold them, as a list; anything else as it is."""
    if not isinstance(messages, str) or not messages.lstrip().startswith("["):
        return messages
    try:
        return json.loads(messages)
    except (ValueError, RecursionError):
        return messages


def standard_role(given: object) -> Any:
    """The name of a role in ``ROLES``, if it is known by another one."""
    return OTHER_NAMES.get(given, given) if isinstance(given, str) else given


def _turn(message: object, place: str) -> tuple[Turn, bool]:
    """A message as a turn, and whether its role says that it is a call."""
    if not isinstance(message, Mapping):
        raise RowError(place, f"must be an object, got {shown(message)}")
    name = "role" if "role" in message or "from" not in message else "from"
    given = value_of(message, name, place)
    role = standard_role(given)
    if role not in ROLES:
        raise RowError(f"{place}.{name}", f"must be one of {', '.join(ROLES)}, got {shown(given)}")
    field = "value" if name == "from" and "content" not in message else "content"
    is_call = given in CALL_ROLES
    if len(message) == 2 and not is_call and isinstance(text := message.get(field), str):
        return Turn(role, checked_text(text, f"{place}.{field}", blank=role == "tool")), False
    calls = () if is_call else _calls(message, role, place)
    content, thoughts = ("", "") if calls and message.get(field) is None else _content(message, field, role, place)
    if is_call:
        content, calls = "", call_texts(content, f"{place}.{field}")
    elif not content.strip() and not calls and role != "tool":
        raise RowError(f"{place}.{field}", f"must not be blank, got {shown(content)}")
    turn = Turn(
        role,
        content,
        reasoning=_reasoning(message, thoughts, role, place),
        tool_calls=calls,
        name=_text(message, "name", place),
        tool_call_id=_text(message, "tool_call_id", place),
        weight=_turn_weight(message, role, place),
    )
    return turn, is_call


def _calls(message: Row, role: str, place: str) -> tuple[str, ...]:
    """The calls of an assistant turn: ``tool_calls``, or ``function_call`` of the former OpenAI API."""
    found = [name for name in ("tool_calls", "function_call") if message.get(name)]
    if not found:
        return ()
    if role != "assistant":
        raise RowError(f"{place}.{found[0]}", f"only an assistant turn has calls, this one is {role}")
    return tuple(call for name in found for call in call_texts(message[name], f"{place}.{name}"))


def _content(message: Row, field: str, role: str, place: str) -> tuple[str, str]:
    """The text of a message and its reasoning parts; content is a text, or a list of parts."""
    content = value_of(message, field, place)
    where = f"{place}.{field}"
    if not isinstance(content, list):
        return checked_text(content, where, blank=True), ""
    texts, thoughts = "", ""
    for number, part in enumerate(content):
        kind, text = _part(part, f"{where}[{number}]", role)
        texts += text * (kind == "text")
        thoughts += text * (kind != "text")
    return texts, thoughts


def _part(part: object, place: str, role: str) -> tuple[str, str]:
    """The type of a content part, and its text."""
    if isinstance(part, str):
        return "text", checked_text(part, place, blank=True)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and (kind == "text" or (kind in REASONING and role == "assistant")):
        name = next((name for name in (str(kind), "text", "value") if name in part), "text")
        return str(kind), checked_text(part.get(name), f"{place}.{name}", blank=True)
    raise RowError(place, f"must be a part of type text, got {shown(part)}")


def _reasoning(message: Row, thoughts: str, role: str, place: str) -> str | None:
    found = {
        name: checked_text(message[name], f"{place}.{name}", blank=True) for name in REASONING if message.get(name)
    }
    found |= {"content": thoughts} if thoughts else {}
    texts = {name: text for name, text in found.items() if text.strip()}
    if not texts:
        return None
    first, *others = texts
    if role != "assistant":
        raise RowError(f"{place}.{first}", f"only an assistant turn has reasoning, this one is {role}")
    if differing := next((name for name in others if texts[name] != texts[first]), None):
        raise RowError(f"{place}.{differing}", f"differs from {first}: {shown(texts[differing])}")
    return texts[first]


def _text(message: Row, name: str, place: str) -> str:
    value = message.get(name)
    return "" if value is None else checked_text(value, f"{place}.{name}", blank=True)


def _turn_weight(message: Row, role: str, place: str) -> float:
    """``weight``, or ``train`` (axolotl) and ``loss`` (ms-swift), which are true or false."""
    weight, where = number_of(message.get("weight"), f"{place}.weight"), f"{place}.weight"
    for name in ("train", "loss"):
        if (flag := message.get(name)) is not None:
            if not isinstance(flag, bool | int) or flag not in (0, 1):
                raise RowError(f"{place}.{name}", f"must be true or false, got {shown(flag)}")
            weight, where = weight * flag, f"{place}.{name}"
    if role != "assistant" and weight not in (0, 1):
        raise RowError(where, f"only an assistant turn is trained, this one is {role}")
    return weight if role == "assistant" else 1.0


def number_of(value: object, place: str) -> float:
    """A weight: 1 if it is null.

    Raises:
        RowError: It is no number of at least 0.
    """
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RowError(place, f"must be a number of at least 0, got {shown(value)}")
    return float(value)


def _joined(turn: Turn, call: Turn, place: str) -> Turn:
    """An assistant turn with the calls of the turn after it, which are part of the same answer."""
    if turn.weight != call.weight:
        raise RowError(f"{place}.weight", "the calls after an assistant turn are part of it and have its weight")
    reasoning = "\n".join(filter(None, (turn.reasoning, call.reasoning))) or None
    return replace(turn, tool_calls=(*turn.tool_calls, *call.tool_calls), reasoning=reasoning)


def _check_order(before: Turn | None, turn: Turn, place: str) -> None:
    if before is None:
        wanted = (turn.role if turn.role in SYSTEM else "user",)
    elif before.role == "assistant":
        wanted = ("tool",) if before.tool_calls else ("user", "tool")
    else:
        wanted = {"user": ("assistant",), "tool": ("tool", "assistant")}.get(before.role, ("user",))
    if turn.role not in wanted:
        raise RowError(f"{place}.role", f"must be {' or '.join(wanted)} here, got {shown(turn.role)}")
