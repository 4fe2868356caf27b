"""docs/my-data.md is what its generator makes of the files that test_data_shapes reads."""

from tests.support.docs_scripts import docs_script


def test_the_page_is_up_to_date():
    made = docs_script("make_my_data")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_my_data.py"
