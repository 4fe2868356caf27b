"""The data of a run on its report: findings that matter, and all numbers of the audit."""

from llmft.report import data_section

LENGTH = {"median": 4, "p95": 9, "max": 1200}
AUDIT = {
    "train": {"rows": 1000, "prompt_tokens": LENGTH, "over_prompt": 0.0, "duplicates": 9, "odd_characters": 10},
    "test": {"rows": 0, "prompt_tokens": LENGTH, "leaked": 0},
    "val": {"rows": 500, "prompt_tokens": LENGTH, "over_prompt": 0.25, "leaked": 1, "near_leaked": 1, "duplicates": 0},
}


def test_leaks_matter_and_others_from_one_per_cent():
    found = data_section.findings({"kept": 1500, "rows": 1502, "truncated": {"answer": 2}, "dropped": {"blank": 2}, "audit": AUDIT})  # fmt: skip
    assert found == [
        ("2 of 1,500 answers were longer than their max tokens and are trimmed", True),
        ("train: 10 of 1,000 rows hold unprintable characters", True),
        ("val: 1 of 500 rows have a prompt that is in train too", True),  # near_leaked counts no other row
        ("2 of 1,502 rows were dropped (rejected.jsonl)", False),
        ("train: 9 of 1,000 rows repeat another row", False),
    ]
    assert data_section.findings({}) == []


def test_the_table_holds_every_number():
    table = data_section.audit_table({"audit": AUDIT})
    assert table[0] == ("", "train", "val")  # test has no rows
    assert ("prompt tokens: median / 95 % / max", "4 / 9 / 1,200", "4 / 9 / 1,200") in table
    assert ("prompts over their max tokens", "0.0%", "25.0%") in table
    assert ("rows that have a prompt that is in train too", "-", "1") in table
    assert ("rows that repeat another row", "9", "0") in table
    assert data_section.audit_table({}) == []
