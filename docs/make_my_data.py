"""``python docs/make_my_data.py`` writes docs/my-data.md: files as people have them, and what llmft says of each."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "my-data.md"
sys.path.insert(0, str(ROOT))

from tests.support.data_shapes import INTRODUCTION, KEYS, MESSAGES, NOTES, REFUSED, TAKEN, Case  # noqa: E402

from llmft.utils.shell import argument  # noqa: E402

SAID = re.compile(r"data\.path=\S+: (?P<kind>.*) \(.*\); the same as (?P<options>.*)")


def taken(cases: list[Case]) -> Iterator[str]:
    """The rows of the table of shapes."""
    yield "| your rows | the first of them | are taken for | the same as |\n|---|---|---|---|\n"
    for case in cases:
        if not (found := SAID.fullmatch(case.said)):
            raise ValueError(f"{case.name}: it is not taken as it is: {case.said}")
        row = "<br>".join(f"`{line}`" for line in case.shown().replace("|", "\\|").splitlines())
        row += "".join(f"<br>*{line}*" for line in case.read_as)
        yield f"| {case.title} | {row} | {found['kind']} | `{found['options']}` |\n"


def refused(case: Case) -> str:
    """A heading, the row, the message and what it means."""
    options = f" {case.options}" if case.options else ""
    command = f"python -m llmft preview {argument('data.path', case.name)}{options}"
    said = case.said.replace("data.path=", "llmft: data.path=")
    return f"### {case.title}\n\n{case.advice}\n\n```text\n$ {command}\n{said}\n```\n"


def page() -> str:
    """The page."""
    plain, noted = [c for c in TAKEN if not c.notes], [c for c in TAKEN if c.notes]
    notes = "".join(f"- {case.title}: `{note}`\n" for case in noted for note in case.notes)
    return "".join([INTRODUCTION, *taken(plain), NOTES, notes, MESSAGES, "\n".join(map(refused, REFUSED)), KEYS])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
