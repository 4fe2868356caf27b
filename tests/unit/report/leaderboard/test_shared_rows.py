"""Which rows runs share, and the scores over them, by hand."""

from llmft.report.leaderboard.shared_rows import shared_rows
from tests.unit.report.leaderboard.boards import rows, run


def test_rows_are_matched_by_identity_wherever_they_stand():
    a = run(predictions=rows(["x", "y", "x"], [1.0, 2, 3], [1] * 3))
    b = run(predictions=rows(["z", "x", "y"], [1.0, 2, 3], [1] * 3))
    found = shared_rows([[a], [b]])
    assert found is not None
    assert found.keys == [("x", 1), ("y", 1)]  # the second x has no partner
    assert found.scores[0]["loss"]["tuned"] == 1.5
    assert found.scores[1]["loss"]["tuned"] == 2.5


def test_rows_of_older_runs_are_matched_by_file_line_and_texts():
    def old(place, question):
        return [{"place": place, "question": question, "reference": "r", "answer": "r", "nats": 1.0, "supervised": 1}]

    found = shared_rows(
        [[run(predictions=old("rows.jsonl:3", "q"))], [run(predictions=old("/data/rows.jsonl:3", "q"))]]
    )
    assert found is not None
    assert len(found) == 1
    assert (
        shared_rows([[run(predictions=old("rows.jsonl:3", "q"))], [run(predictions=old("rows.jsonl:3", "p"))]]) is None
    )
    assert (
        shared_rows([[run(predictions=old("rows.jsonl:3", "q"))], [run(predictions=old("rows.jsonl:4", "q"))]]) is None
    )


def test_a_reference_that_was_cut_is_omitted():
    cut = [row | {"cut": row["reference"] == "x"} for row in rows(["x", "y"], [1.0, 2], [1, 1])]
    found = shared_rows([[run(predictions=cut)], [run(predictions=rows(["x", "y"], [1.0, 2], [1, 1]))]])
    assert found is not None
    assert found.keys == [("y", 1)]


def test_a_row_counts_once_however_many_seeds_answered_it():
    """x: 1 and 3 nats by two seeds, a mean of 2; y: 5 nats by one. (2 + 5) / 2 tokens, not (1 + 3 + 5) / 3."""
    seeds = [run(predictions=rows(["x", "y"], [1.0, 5.0], [1, 1])), run(predictions=rows(["x"], [3.0], [1]))]
    found = shared_rows([seeds, [run(predictions=rows(["x", "y"], [1.0, 1.0], [1, 1]))]])
    assert found is not None
    assert found.scores[0]["loss"]["tuned"] == 3.5
    assert found.of_runs(0, "loss") == [3.0, 3.0]


def test_bytes_are_of_utf_8():
    """ "é" has 2 bytes: 6 nats over 3 bytes."""
    found = shared_rows([[run(predictions=rows(["é", "e"], [4.0, 2.0], tokens))] for tokens in ([1, 1], [2, 1])])
    assert found is not None
    assert [metric.name for metric in found.metrics[:1]] == ["nats_per_byte"]
    assert found.scores[0]["nats_per_byte"]["tuned"] == 2.0
