"""Layout of help pages in the terminal."""

import shutil
import textwrap

WIDTH = 80


def two_columns(rows: dict[str, str], width: int = 0) -> str:
    """Texts behind names, wrapped; a name that is too long stands on a line of its own."""
    total = columns()
    width = width or min(max(map(len, rows), default=0), 26) + 2
    lines = []
    for name, text in rows.items():
        wrapped = textwrap.wrap(text, total - width - 2, break_on_hyphens=False) or [""]
        if len(name) > width - 2:
            while len(name) > total - 2:
                cut = max(name.rfind(mark, 0, total - 2) for mark in " /") + 1 or total - 2
                lines.append(f"  {name[:cut]}".rstrip())
                name = f"  {name[cut:]}"
            lines.append(f"  {name}")
            name = ""
            if not text:
                continue
        lines += [f"  {name:<{width}}{wrapped[0]}".rstrip(), *(" " * (width + 2) + line for line in wrapped[1:])]
    return "\n".join(lines)


def fill(text: str) -> str:
    """A paragraph that begins with a capital letter."""
    text = text[:1].upper() + text[1:]
    return textwrap.fill(text, columns())


def columns() -> int:
    """Width of the page: of the terminal, from 60 to 100; 80 in a file."""
    return max(60, min(shutil.get_terminal_size((WIDTH, 24)).columns, 100))
