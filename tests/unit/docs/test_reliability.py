"""The fault table of docs/reliability.md: every row names a test, and each test is there."""

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_named_test_is_there():
    named = NAMED.findall(PAGE)
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_every_fault_names_its_test():
    rows = [row.split("|") for row in PAGE.splitlines() if row.startswith("|") and not row.startswith("|---")]
    table = [row for row in rows if len(row) == 7]
    assert table[0][1:6] == [" fault ", " message ", " exit code ", " what is kept ", " test "]
    assert len(table) > 20
    for row in table[1:]:
        assert NAMED.search(row[5]) or row[5] == " the same ", row[1]
