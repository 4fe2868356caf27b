"""docs/ as a site: every page is in the navigation, every link and anchor leads somewhere, and the strict build loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(https?:[^\"' >]*)")


def listed(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in listed(child)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if n == 0 else f"{slug}-{n}" for slug, number in found.items() for n in range(number + 1)}


def test_the_navigation_lists_every_page_once():
    assert sorted(listed(SITE["nav"])) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_are_there(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for name, anchor in LINK.findall(text):
        if not name.startswith("http"):
            assert anchor in anchors(((page.parent / name) if name else page).read_text(encoding="utf-8")), (
                f"{name}#{anchor}"
            )


def test_anchors_are_those_of_github():
    text = "# A `key=` and [a link](x.md)\n```\n# a comment\n```\n## Twice\n## Twice\n## What *is* it?"
    assert anchors(text) == {"a-key-and-a-link", "twice", "twice-1", "what-is-it"}


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("zensical")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "build" / "site"
    pages = [site / ("index.html" if page.name == "README.md" else f"{page.stem}.html") for page in PAGES]
    assert [page.name for page in pages if not page.is_file()] == []
    assert {url for page in pages for url in LOADED.findall(page.read_text(encoding="utf-8"))} == set()
    assert not list(site.glob("*.py"))
