"""``python docs/make_templates.py`` writes docs/templates.md: what the chat templates of ``trl`` do, as llmft finds it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "templates.md"
sys.path.insert(0, str(ROOT))

from tests.support.template_table import INTRODUCTION, rows  # noqa: E402


def page() -> str:
    """The page."""
    return INTRODUCTION + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
