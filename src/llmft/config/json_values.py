"""JSON Schemas of single values: those of pydantic, simplified."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def tidy(node: Any, definitions: Json) -> Any:
    """A schema of pydantic without references, titles and defaults, and with the bounds of unions as JSON Schema has them."""
    if isinstance(node, list):
        return [tidy(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return tidy(definitions[node["$ref"].rpartition("/")[2]], definitions)
    found = {}
    for key, value in node.items():
        if key == "properties":
            found[key] = {name: tidy(child, definitions) for name, child in value.items()}
        elif key in BOUNDS or key in BOUNDS.values():
            if not isinstance(value, float) or value < 1e308:
                found[BOUNDS.get(key, key)] = value
        elif key not in ("title", "default", "$defs", "anyOf", "oneOf"):
            found[key] = tidy(value, definitions)
    parts = tidy(node.get("anyOf", node.get("oneOf", [])), definitions)
    if {"type": "number"} in parts:
        parts.remove({"type": "integer"})
    return either(parts) | found if parts else found


def either(shapes: Sequence[Json]) -> Json:
    """A schema that accepts what one of these accepts; a description is that of the first."""
    parts = [
        part for shape in shapes for part in (shape["anyOf"] if set(shape) <= {"anyOf", "description"} else [shape])
    ]
    if len(parts) == 1:
        return dict(parts[0])
    return {"anyOf": [part for number, part in enumerate(parts) if part not in parts[:number]]}


def accepts_references(shape: Json) -> bool:
    """Whether a schema accepts any string, and so ``${...}`` and ``???`` too."""
    parts = shape.get("anyOf", [shape])
    return any(p.get("type") == "string" and not {"enum", "const"} & set(p) and _any_text(p) for p in parts)


def _any_text(shape: Json) -> bool:
    return shape.get("pattern") in (None, r"^[^\x00]+$")
