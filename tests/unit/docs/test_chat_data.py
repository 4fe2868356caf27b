"""docs/chat-data.md shows what is trained today."""

from tests.support.docs_scripts import docs_script


def test_the_page_is_up_to_date():
    made = docs_script("make_chat_data")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_chat_data.py"
