"""Paths of files that the pages name exist, and CONTRIBUTING's table of layers is the one that the layer test holds."""

import re

import pytest

from tests.conftest import ROOT
from tests.unit.test_layers import FLOORS

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# ``models/module.py`` is below src/llmft, ``tests/...`` and ``benchmarks/...`` are below the root
NAMED = re.compile(r"`((?:src/llmft/|tests/|benchmarks/|conf/)?[a-z_]+/[\w/]+\.(?:py|yaml))\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_file_exists(page):
    named = set(NAMED.findall(page.read_text(encoding="utf-8"))) - {"conf/data/mine.yaml"}  # the reader's own
    named -= {name for name in named if "NAME" in name}
    missing = [name for name in named if not any((base / name).is_file() for base in (ROOT, ROOT / "src" / "llmft"))]
    assert missing == []


def test_the_table_of_layers():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {(int(layer), package) for layer, package in re.findall(r"^\| (\d) \| `(\w+)/` \|", page, re.MULTILINE)}
    assert shown == {(n, package) for n, packages in enumerate(FLOORS[:-2], start=1) for package in packages}
