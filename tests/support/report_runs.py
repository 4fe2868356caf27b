"""Run directories as a training leaves them, with hostile texts, for reports and leaderboards."""

import csv
import json
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from omegaconf import OmegaConf

from llmft.config.schema.evaluation import Report
from llmft.metrics import bootstrap, compare
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.predictions import Prediction, save

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7919*7919 }}</pre>&amp;\x1b[31m"
SETTINGS = Report(write=True, examples=4, best_and_worst=2, reference_curve=None)


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
    metrics = builtin_metrics()
    scores = bootstrap.compare(metrics, *compare.tables_of(predictions, metrics), resamples=200, seed=0)
    save(folder / "predictions.jsonl", predictions)
    found = {
        "source": words or "s",
        "split": "val",
        "rows": 8,
        "of": 8,
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


MARKED = f"{EVIL} [a](javascript:alert(3)) ![b](https://example.org/c.png) `d` | e \\\\ f"


def shown(text):
    """Markdown as a viewer shows it that renders HTML, too."""
    return Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
