"""Pages: what they say, that nothing in a row can act in them, and which differences are called real."""

import csv
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from omegaconf import OmegaConf

from llmft.export import model_card
from llmft.metrics import compare
from llmft.metrics.builtin import metrics
from llmft.metrics.predictions import Prediction, save
from llmft.report import content, curves, leaderboard, significance
from llmft.report.curves import Series
from llmft.report.html import write
from llmft.report.word_diff import marked
from llmft.training import summary
from llmft.utils.errors import UserError

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7919*7919 }}</pre>&amp;\x1b[31m"
SETTINGS = OmegaConf.create({"examples": 4, "best_and_worst": 2, "reference_curve": None})


class Tags(HTMLParser):
    """Every tag, attribute and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def make_run(folder, *, seed=0, model="m", loss=1.0, status="finished", test=None, words=""):
    """A run directory as a training leaves it, without the training."""
    folder.mkdir(parents=True)
    cfg = {
        "seed": seed,
        "objective": "val/loss",
        "output_dir": str(folder),
        "model": {"name": model},
        "data": {"name": "d"},
    }
    cfg |= {"peft": {"name": "lora"}, "optim": {"lr": 1e-3}, "note": words}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(cfg)))
    predictions = [
        Prediction(str(n), "P", f"the answer {n}", f"the answer {n} {words}", f"base {words}", question=f"Q{n} {words}", place=f"f:{n}", supervised=2, nats=loss * (1 + n), base_nats=9.0 + n)
        for n in range(8)
    ]  # fmt: skip
    scores = compare.score(predictions, metrics(), resamples=200, seed=0)
    save(folder / "predictions.jsonl", predictions)
    found = {
        "source": words or "s",
        "split": "val",
        "rows": 8,
        "of": 8,
        "headline": compare.headline(scores),
        "scores": scores,
        "seeds": None,
    }
    (folder / "evaluation.json").write_text(json.dumps(found))
    record = {
        "status": status, "reason": words or None, "seed": seed, "command": ["llmft", "train", f"x={words}"], "versions": {"torch": "2", words: "1"},
        "data": {"source": words, "rows": 8, "kept": 8, "dropped": {words: 1}, "split": {"val": 8}, "lengths": {"edges": [0, 5, 10], "prompt": [1, 2], "answer": [3, 0]}},
        "parameters": {"total": 1000, "trainable": 10}, "metrics": {"before": {"val/loss": 2.0}, "after": {"val/loss": loss}, "steps": 4, "best_step": 2, "test": test or {}},
        "objective": loss, "seconds": 60.0, "peak_memory_mib": {"cpu": 500.0},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "metrics.csv").open("w", newline="") as out:
        csv.writer(out).writerows(
            [
                ["step", "epoch", "train/loss", "val/loss", "train/tokens_per_second"],
                [0, 0, "", 2.0, ""],
                [2, 0, 1.5, loss, 100],
                [4, 1, 1.2, loss + 0.5, 110],
            ]
        )
    sample = {"step": 2, "place": "f:1", "question": words, "reference": words, "answer": words}
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n{half a line")
    return folder


def test_a_page_says_what_there_is(tmp_path):
    run = make_run(tmp_path / "run")
    text = write(run, SETTINGS).read_text()
    for said in (
        "Better than its base",
        "8 of 8 val rows",
        "d on m",
        "val rows stand in",
        "more steps would have hurt",
        "Best rows",
        "Worst rows",
        "Step 2",
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


def test_nothing_in_a_row_can_act(tmp_path):
    run = make_run(tmp_path / "run", words=EVIL, status="halted")
    text = write(run, SETTINGS).read_text()
    found = Tags(text)
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "62710561" not in text
    assert any("<script>alert(1)</script>" in t for t in found.texts)  # shown as text
    assert "This run is halted" in text


MARKED = f"{EVIL} [a](javascript:alert(3)) ![b](https://example.org/c.png) `d` | e \\\\ f"


def shown(text):
    """Markdown as a viewer shows it that renders HTML, too."""
    return Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_nothing_in_a_leaderboard_in_markdown_can_act(tmp_path):
    make_run(tmp_path / "a", model=MARKED, loss=1.0)
    make_run(tmp_path / "b", model="other", loss=1.5)
    make_run(tmp_path / "dead", status="failed", words=MARKED)
    found = shown(leaderboard.write(tmp_path))
    assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert found.tags.count("td") == 2 * found.tags.count("th")
    for text in ("<script>alert(1)</script>", "[a](javascript:alert(3)) ![b]", "`d` | e", "&amp;"):
        assert sum(text in t for t in found.texts) == 2, text


def test_nothing_in_a_model_card_can_act(load):
    cfg = load("data=alpaca", "model=tiny_gpt2")
    cfg.model.name, cfg.data.name, cfg.peft.name, cfg.data.system, cfg.model.path = [MARKED] * 5
    record = {"data": {"source": MARKED, "sha256": MARKED, "dropped": {MARKED: 1}, "split": {MARKED: 1}}, "metrics": {"steps": MARKED}, "versions": {MARKED: MARKED}}  # fmt: skip
    scores = {"rows": 1, "of": 2, "split": MARKED, "headline": MARKED, "scores": {MARKED: {"base": 1.0, "tuned": 2.0, "verdict": MARKED}}}  # fmt: skip
    for known in (scores, None):
        text = model_card.card(cfg, record, known, "merged")
        found = shown(text.partition("\n---\n")[2])  # behind the front matter, which is JSON
        assert not {"script", "img", "a"} & set(found.tags)
        assert any("<script>alert(1)</script>" in t for t in found.texts)


def test_a_page_needs_no_network(tmp_path):
    text = write(make_run(tmp_path / "run"), SETTINGS).read_text()
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
    text = write(make_run(tmp_path / "run"), SETTINGS).read_text()
    svg = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in svg
    assert "#0a0b" not in svg
    assert not re.search(r"(fill|stroke): #(?!none)", svg)
    assert "<text" in svg  # readable, searchable
    assert "width=" not in svg[: svg.index(">")]


def test_a_run_that_failed_early_has_a_page_too(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "failed", "reason": "no rows"}')
    text = write(tmp_path, SETTINGS).read_text()
    assert "This run is failed" in text
    assert "no rows" in text
    with pytest.raises(UserError, match="no run directory"):
        write(tmp_path / "nowhere", SETTINGS)


def test_a_published_curve_stands_beside_ours(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "published.csv").write_text("step,train/loss,val/loss\n0,2.6,2.7\n4,0.9,1.1\n")
    text = write(run, OmegaConf.merge(SETTINGS, {"reference_curve": str(tmp_path / "published.csv")})).read_text()
    assert "published val/loss" in text
    (tmp_path / "published.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of step and numbers"):
        curves.reference(str(tmp_path / "published.csv"))
    with pytest.raises(UserError, match="no such file"):
        curves.reference(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("values", "objective", "said"),
    [
        ([3.0, 2.0, 2.5], "val/loss", "best with 2 at step 1 and had become worse by the end (2.5 at step 2)"),
        ([3.0, 2.5, 2.0], "val/loss", "best at the end (2 at step 2): more steps could help"),
        ([1.0, 2.5, 2.0], "val/loss", "best before the training (1 at step 0)"),
        ([1.0, 30.0, 20.0], "val/bleu", "best with 30 at step 1"),
        ([1.0, 20.0, 30.0], "val/bleu", "more steps could help"),
    ],
)
def test_when_more_would_have_hurt(values, objective, said):
    found = curves.when_to_stop({objective: Series([0, 1, 2], values, [0, 0, 0])}, objective)
    assert said in str(found)
    assert curves.when_to_stop({objective: Series([0], values[:1], [0])}, objective) is None


def test_the_advice_goes_by_what_chose_the_checkpoint(load, tmp_path, capsys):
    """The losses were best at step 2, and the agreement, of which more is better, at the end."""
    run, table = make_run(tmp_path / "run"), ["step,val/loss,val/agreement", "0,3.0,0.1", "2,1.0,0.2", "4,1.5,0.3"]
    (run / "metrics.csv").write_text("\n".join(table))
    by_loss, by_agreement = "val/loss was best with 1 at step 2", "val/agreement was best at the end (0.3 at step 4)"
    directory: Any = SimpleNamespace(path=run, model=run / "model")
    for overrides, said in {
        (): by_loss,
        ("callbacks.checkpoints.monitor=val/agreement", "callbacks.checkpoints.mode=max"): by_agreement,
        (
            "objective=val/agreement",
            "callbacks.checkpoints=null",
        ): "val/agreement was best before the training",  # as a loss
    }.items():
        cfg = load("model=tiny_gpt2", "data=alpaca", *overrides)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
        text = write(run, SETTINGS).read_text()
        metrics = {"before": {}, "after": {}, "steps": 4, "best_step": 2}
        summary.show(directory, metrics, (), (), (), None, curves.decisive(cfg))
        for shown in (text, capsys.readouterr().out):
            assert said in shown
            assert sum(one in shown for one in (by_loss, by_agreement)) == (said in (by_loss, by_agreement))


def test_differences_are_marked():
    left, right = marked("The cat sat.", "The dog sat!")
    assert left == [("The ", False), ("cat", True), (" sat", False), (".", True)]
    assert right == [("The ", False), ("dog", True), (" sat", False), ("!", True)]


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"])),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"])),
)
def test_marks_lose_nothing(a, b):
    left, right = marked(a, b)
    assert "".join(text for text, _ in left) == a
    assert "".join(text for text, _ in right) == b


def test_a_leaderboard_joins_seeds_and_says_what_is_noise(tmp_path):
    for seed, loss in enumerate((1.00, 1.02, 0.98)):
        make_run(tmp_path / f"a{seed}", seed=seed, model="good", loss=loss, test={"chrf": 50.0 + seed})
    for seed, loss in enumerate((1.01, 1.03, 1.00)):
        make_run(tmp_path / f"b{seed}", seed=seed, model="like", loss=loss)
    for seed, loss in enumerate((1.50, 1.55, 1.45)):
        make_run(tmp_path / f"c{seed}", seed=seed, model="bad", loss=loss)
    make_run(tmp_path / "dead", status="failed", words="out | of luck")
    text = leaderboard.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert [row["model"] for row in rows] == ["good", "like", "bad"]
    assert rows[0]["val/loss"] == "1.000 ± 0.020"
    assert rows[0]["test chrf"] == "51.00 ± 1.000"
    assert rows[0]["seeds"] == "0, 1, 2"
    assert rows[0]["against the best"] == "the best"
    assert rows[1]["against the best"].startswith("no difference seen: +0.01333")
    assert rows[2]["against the best"].startswith("worse: +0.5 (")
    assert (rows[0]["trained %"], rows[0]["tokens/s"], rows[0]["peak MiB"], rows[0]["time"]) == (
        "1.000",
        "105.0",
        "500.0",
        "60 s",
    )
    assert (tmp_path / "leaderboard.png").read_bytes()[:4] == b"\x89PNG"
    assert "not ranked: dead: failed, out \\| of luck" in text
    assert "model=good (run a0, a1, a2)" in (tmp_path / "leaderboard.html").read_text()


def test_single_runs_are_compared_on_shared_rows(tmp_path):
    make_run(tmp_path / "a", model="good", loss=1.0)
    make_run(tmp_path / "b", model="bad", loss=1.5)
    leaderboard.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert rows[1]["against the best"].startswith("worse: +")
    assert "test loss over 8 rows" in rows[1]["against the best"]
    with pytest.raises(UserError, match="no run directory below it"):
        leaderboard.write(tmp_path / "a" / "report")


def test_welch_by_hand():
    """2.1, 2.3, 2.2 against 2.0, 1.8, 1.9: difference 0.3, standard error 0.08165, 4 degrees of freedom, half width 0.22666."""
    verdict, numbers = significance.over_seeds((2.1, 2.3, 2.2), (2.0, 1.8, 1.9), "lower") or ("", "")
    assert verdict == "worse"
    assert numbers == "+0.3 (+0.07334 to +0.5267), seeds"
    assert significance.over_seeds((2.1,), (2.0, 1.8), "lower") is None


def test_the_verdict_of_a_page():
    def said(*verdicts):
        scores = {name: {"better": "higher", "verdict": v} for name, v in zip("abcd", verdicts, strict=False)}
        return content.verdict({"scores": scores, "headline": "x rougeL"})

    assert said("better", "no difference seen")["kind"] == "good"
    assert said("worse")["words"] == "Worse than its base"
    assert said("better", "worse", "worse")["words"] == "Better than its base on 1 scores, worse on 2"
    assert said("no difference seen")["words"] == "No difference from its base seen"
    assert said(None)["words"] == "Not compared with a base"
    assert said("better")["sentence"] == "X rougeL."
    assert content.verdict(None)["words"] == "Not evaluated"
