"""Files and columns that are refused before a library is imported."""

import pytest

from llmft.data.early import check_data
from llmft.data.sources import resolve
from llmft.utils.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=no.csv"], "data.path=no.csv: no such file (looked in "),
        (["data.path=[qa.csv,no.csv]"], "data.path=no.csv: no such file"),
        (["data.path=qa.txt"], "data.path=qa.txt: a file must end in "),
        (["data.path=qa.csv", "data.val_path=no.csv"], "data.val_path=no.csv: no such file"),
        (["data.path=qa.csv", "+data.extra_val.a=no.csv"], "data.extra_val.a=no.csv: no such file"),
        (["data=mix", "data.sets.academic.path=no.csv"], "data.sets.academic.path=no.csv: no such file"),
        (
            ["data=custom", "data.path=qa.csv"],
            "qa.csv has the fields question, answer: data.columns.instruction=question",
        ),
        (["data=custom"], "data.path=sample: no sample is shipped for data=custom; pass data.path=FILE"),
        (
            ["data=custom", "data.path=owner/set"],
            "must name instruction and output, or messages; data.columns.ROLE=FIELD",
        ),
        (["data=custom", "data.path=qa.csv", "data.columns.instruction=q"], "must name instruction and output"),
        (["data=custom", "data.path=q.csv", "data.delimiter=pipe"], "has the fields q,x, a: "),
        (["data=custom", "data.path=q.csv"], "has the fields q, x|a: "),
        (
            ["data=mix", "+data@data.sets.own=custom", "data.sets.own.path=qa.csv"],
            "data.sets.own.columns: 1 fault\n  - must name instruction and output, or messages; qa.csv has the fields question, "
            "answer: data.sets.own.columns.instruction=question",
        ),
    ],
)
def test_what_is_refused(overrides, message, load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qa.csv").write_text("question,answer\nQ,A\n")
    (tmp_path / "q.csv").write_text("q,x|a\nQ,X|A\n")
    (tmp_path / "qa.txt").write_text("Q\n")
    with pytest.raises(UserError) as caught:
        check_data(load(*overrides).data)
    assert message in str(caught.value)


def test_files_of_held_out_rows_are_not_read(load, tmp_path, monkeypatch):
    (tmp_path / "qa.csv").write_text("question,answer\nQ,A\n")
    monkeypatch.setattr(resolve, "digest", lambda _: pytest.fail("read the file"))
    check_data(load("data=academic", f"data.path={tmp_path}/qa.csv", f"data.test_path={tmp_path}/qa.csv").data)


@pytest.mark.parametrize(
    "path", ["sample", "owner/set", "'https://example.org/qa.json#sha256=0'", "'${oc.env:NOWHERE}'"]
)
def test_what_is_not_a_file_is_left_to_the_reader(path, load):
    check_data(load(f"data.path={path}").data)
