"""docs/templates.md shows what chat templates do today."""

from tests.conftest import ROOT
from tests.support.template_table import INTRODUCTION, rows


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    assert page == INTRODUCTION + "\n".join(rows()) + "\n", "run: python docs/make_templates.py"
