"""A report's page: what it says, and that nothing in a row can act in it."""

import json
import re

import pytest

from llmft.report import content
from llmft.report.html import write_report
from llmft.utils.errors import UserError
from tests.support.report_runs import EVIL, SETTINGS, Tags, make_run


def test_a_page_says_what_there_is(tmp_path):
    run = make_run(tmp_path / "run")
    text = write_report(run, SETTINGS).read_text()
    for said in (
        "Better than its base on 8 validation rows: loss",
        "8 of 8 validation rows",
        "d on m",
        "no test split: these are validation rows",
        "Validation loss was best at step 2 of 4 (1); the last 2 steps made it worse by 0.5.",
        "best by chrF",
        "worst by chrF",
        "Sample at step 2",
        "python -m llmft train",
    ):
        assert said in text, said
    names = {file.name for file in (run / "report").iterdir()}
    assert {
        "loss.png",
        "lengths.png",
        "differences.png",
        "throughput.png",
        "train_loss.csv",
        "val_loss.csv",
        "scores.csv",
    } <= names
    assert (run / "report" / "val_loss.csv").read_text().splitlines() == [
        "step,epoch,val/loss",
        "0,0.0,2.0",
        "2,0.0,1.0",
        "4,1.0,1.5",
    ]
    assert (run / "report" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert len(text) < 1_000_000


def test_a_row_is_on_the_page_once(tmp_path):
    """Row 1 is among the first, among the best and a sample of the training."""
    run = make_run(tmp_path / "run")
    sample = {"step": 2, "place": "f:1", "question": "Q1 ", "answer": "early answer"}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    text = write_report(run, SETTINGS).read_text()
    rows = json.loads("[" + ",".join((run / "predictions.jsonl").read_text().splitlines()) + "]")
    assert [text.count(f">{row['place']}</span>") for row in rows[:4]] == [1, 1, 1, 1]
    assert max(text.count(f">{row['place']}</span>") for row in rows) == 1
    assert text.count("early answer") == 1
    assert text.index(">f:1</span>") < text.index("early answer") < text.index(">f:2</span>")
    assert 'id="samples"' not in text


def test_each_entry_of_the_contents_leads_to_a_heading(tmp_path):
    text = write_report(make_run(tmp_path / "run"), SETTINGS).read_text()
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text)
    headings = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', text)
    assert links == headings
    assert [title for _, title in links][:3] == ["Examples", "Next steps", "Scores"]


def test_words_are_marked_against_the_reference(tmp_path):
    """Both answers are wrong in the same word: it is marked in both, and what is right is marked in neither."""
    row = {"reference": "two years", "answer": "one years", "base_answer": "one Years"}
    (tmp_path / "run.json").write_text('{"status": "finished"}')
    (tmp_path / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    text = write_report(tmp_path, SETTINGS).read_text()
    assert text.count('<mark class="extra">one</mark> years') == 1
    assert text.count('<mark class="extra">one</mark> Years') == 1
    assert '<mark class="missing">two</mark> years' in text
    assert text.count("1 missing, 1 extra words") == 2


def test_nothing_in_a_row_can_act(tmp_path):
    run = make_run(tmp_path / "run", words=EVIL, status="halted")
    text = write_report(run, SETTINGS).read_text()
    found = Tags(text)
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "62710561" not in text
    assert any("<script>alert(1)</script>" in t for t in found.texts)  # shown as text
    assert "This run is halted" in text


def test_a_page_needs_no_network(tmp_path):
    text = write_report(make_run(tmp_path / "run"), SETTINGS).read_text()
    found = Tags(text)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    links = [
        value
        for name, value in found.attributes
        if name in ("src", "href", "xlink:href", "srcset") and value and value[0] != "#"
    ]
    assert links == []
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_colors_of_figures_are_the_pages(tmp_path):
    text = write_report(make_run(tmp_path / "run"), SETTINGS).read_text()
    svg = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in svg
    assert "#0a0b" not in svg
    assert not re.search(r"(fill|stroke): #(?!none)", svg)
    assert "<text" in svg  # readable, searchable
    assert "width=" not in svg[: svg.index(">")]


def test_a_run_that_failed_early_has_a_page_too(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "failed", "reason": "no rows"}')
    text = write_report(tmp_path, SETTINGS).read_text()
    assert "This run is failed" in text
    assert "no rows" in text
    with pytest.raises(UserError, match="no run directory"):
        write_report(tmp_path / "nowhere", SETTINGS)


def test_each_export_has_a_line():
    passed = {"form": "gguf", "dtype": "float32", "quantize": "q8_0", "status": "passed", "runtime": "llama.cpp 0.3.36",
              "difference": 0.25, "to": "out", "kept": True, "time": "2026-11-30T00:40:10+00:00"}  # fmt: skip
    dropped = {**passed, "quantize": None, "status": "failed", "difference": None, "kept": False}
    one, two = content.exports({"exports": [passed, dropped, "no line"]})
    assert one == {"form": "gguf", "weights": "q8_0", "runtime": "llama.cpp 0.3.36", "status": "passed", "difference": "0.250",
                   "to": "out", "time": "2026-11-30 00:40"}  # fmt: skip
    assert (two["weights"], two["status"], two["to"]) == ("float32", "failed", "not kept")
    assert content.exports({}) == []


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_job_of_a_sweep_is_reproduced_alone(flag):
    command = ["llmft", "train", flag, "peft.r=4,8", "data=custom", "output_dir=all"]
    overrides = ["peft.r=8", "data=custom", "output_dir=all"]
    alone = content.command_of({"command": command, "overrides": overrides})
    assert alone == "python -m llmft train peft.r=8 data=custom"
    assert content.command_of({"command": ["llmft", "train", *overrides], "overrides": overrides}).endswith(
        " output_dir=all"
    )
