"""A user's own data set and callback, from a folder outside: README, "Extending it", word for word."""

import functools
import json
import re

import pytest

from llmft.training.callbacks import complete
from llmft.utils.errors import UserError

PACKAGE = """
import lightning.pytorch as pl

from llmft.data import Example, InstructionDataModule, Turn, text_of
from llmft.metrics.metric import mean_metric


class Mine(InstructionDataModule):
    @staticmethod
    def to_example(row):
        return Example((Turn("user", text_of(row, "q")),), text_of(row, "a"))


def polite():
    return mean_metric("polite", lambda row: float(row.answer.startswith("A")), "answers that begin with A")


class Greeter(pl.Callback):
    def __init__(self, generator, run, datamodule, *, word, often=1):
        self.generator, self.run, self.datamodule, self.word = generator, run, datamodule, word * often

    def on_train_end(self, trainer, pl_module):
        answer = self.generator.answers([self.datamodule.examples_of("train")[0].context])[0]
        (self.run.path / "greeting.txt").write_text(f"{self.word} {len(answer.text)}")
"""

GREETER = "defaults: [default]\nmine: {_target_: myllm.Greeter, _partial_: true, word: hello}\n"


MINE = """
defaults: [_base]
_target_: myllm.Mine
name: mine
fields: [q, a]
metrics: [keywords, {_target_: myllm.polite}]
notice: Its answers are letters and numbers.
questions:
  - question: Q99
"""


def test_from_outside(llmft, tmp_path, monkeypatch):
    files = {
        "myllm.py": PACKAGE,
        "own/data/mine.yaml": MINE,
        "own/callbacks/mine.yaml": GREETER,
        "rows.jsonl": "".join(json.dumps({"q": f"Q{n}", "a": f"A{n}"}) + "\n" for n in range(20)),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    own = (
        "data=mine",
        "--config-dir=own",
        "data.path=rows.jsonl",
        "callbacks=mine",
        "model=tiny_gpt2",
        "debug=fast",
        "output_dir=run",
    )
    code, _, err = llmft(*own)
    assert code == 2
    assert "data._target_=myllm.Mine: not allowed" in err
    assert "pass 'allow_targets=[myllm]'" in err
    code, _, err = llmft(*own, "allow_targets=[myllm]", "output_dir=run2", "generation.max_new_tokens=4")
    assert code == 0, err
    assert re.fullmatch(r"hello \d+", (tmp_path / "run2" / "greeting.txt").read_text())
    assert json.loads((tmp_path / "run2" / "run.json").read_text())["data"]["kept"] == 20


SHORT = (
    "questions=0",
    "callbacks.samples.number=0",
    "generation.max_new_tokens=4",
    "report.write=false",
    "logger=none",
)


def test_a_data_set_from_outside_has_metrics_a_notice_and_questions_of_its_own(llmft, tmp_path, monkeypatch):
    (tmp_path / "myllm.py").write_text(PACKAGE)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(MINE)
    rows = [{"q": f"Q{n}", "a": f"A{n}"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.syspath_prepend(tmp_path)
    own = ("--config-dir=own", "data=mine", "data.path=rows.jsonl", "allow_targets=[myllm]", "output_dir=run")
    code, _, err = llmft(
        *own, "model=tiny_gpt2", "trainer.max_steps=1", "evaluate.rows=4", "data.split.test=0.2", *SHORT
    )
    assert code == 0, err
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())["scores"]
    assert scores["polite"]["better"] == "higher"
    assert 0 <= scores["polite"]["tuned"] <= 100
    assert "keyword_f1" in scores
    assert "- Its answers are letters and numbers." in (tmp_path / "run" / "model" / "README.md").read_text()
    code, out, err = llmft("answer", "run=run", "questions=samples", "format=json", "allow_targets=[myllm]")
    assert code == 0, err
    assert [json.loads(line)["question"] for line in out.splitlines()] == ["Q99"]


def test_a_callback_whose_constructor_names_what_there_is_not():
    def probe(*, run: str, teacher: str, patience: int = 3) -> str:
        return f"{run} {teacher} {patience}"

    context = {"run": "a", "generator": "b"}
    with pytest.raises(UserError) as error:
        complete("mine", functools.partial(probe), context)
    message = (
        "callbacks.mine: its constructor requires teacher; set callbacks.mine.teacher, or take one of the names that a"
    )
    assert str(error.value) == f"{message} training provides: generator, run"
    assert complete("mine", functools.partial(probe, teacher="t", patience=5), context) == "a t 5"


def test_a_wrong_option_of_ones_own(llmft, tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text("defaults: [_base]\n")
    code, _, err = llmft("--config-dir=own", "data=min")
    assert code == 2
    assert "data=min: no such option. Did you mean data=mine?" in err
    code, _, err = llmft("--config-dir=nowhere")
    assert code == 2
    assert "--config-dir=nowhere: no such folder" in err


def test_a_data_set_from_outside_takes_its_own_keys(llmft, tmp_path, monkeypatch):
    own = (
        PACKAGE
        + """

class Short(Mine):
    def __init__(self, config, *, most):
        super().__init__(config)
        self.to_example = lambda row: Example((Turn("user", text_of(row, "q")),), text_of(row, "a")[:most])


class Old(Mine):
    def __init__(self, *, most, **rest):
        super().__init__(**rest)
"""
    )
    (tmp_path / "ownkeys.py").write_text(own)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"q": f"Q{n}", "a": f"A{n}"}) + "\n" for n in range(20)))
    monkeypatch.syspath_prepend(tmp_path)
    line = (
        "preview",
        "model=tiny_gpt2",
        "data=academic",
        "data.fields=[q,a]",
        "data.path=rows.jsonl",
        "data.name=short",
    )
    line += ("allow_targets=[ownkeys]", "data.questions=[]", "format=json", "preview.rows=1")
    code, out, err = llmft(*line, "data._target_=ownkeys.Short", "+data.most=1")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["answer"] == "A"
    code, _, err = llmft(*line, "data._target_=ownkeys.Short", "+data.mots=1")
    assert (code, "data.mots: ownkeys.Short has no such argument. Did you mean most?" in err) == (2, True), err
    code, _, err = llmft(*line, "data._target_=ownkeys.Old", "+data.most=1")
    assert (code, "data._target_=ownkeys.Old: must take the data config as its argument `config`" in err) == (2, True)
