"""docs/chat-data.md shows what is trained today."""

import importlib.util

from tests.conftest import ROOT


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_chat_data", ROOT / "docs" / "make_chat_data.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_chat_data.py"
