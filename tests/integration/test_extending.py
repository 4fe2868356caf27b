"""A user's own data set and callback, from a folder outside: README, "Adding to it", word for word."""

import json

PACKAGE = """
import lightning.pytorch as pl

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Turn, text_of


class Mine(InstructionDataModule):
    @staticmethod
    def to_example(row):
        return Example((Turn("user", text_of(row, "q")),), text_of(row, "a"))


class Greeter(pl.Callback):
    def on_fit_start(self, trainer, pl_module):
        print("hello from outside")
"""


def test_from_outside(llmft, tmp_path, monkeypatch):
    files = {
        "myllm.py": PACKAGE,
        "own/data/mine.yaml": "defaults: [_base]\n_target_: myllm.Mine\nname: mine\n",
        "own/callbacks/mine.yaml": "defaults: [default]\nmine: {_target_: myllm.Greeter}\n",
        "rows.jsonl": "".join(json.dumps({"q": f"Q{n}", "a": f"A{n}"}) + "\n" for n in range(20)),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    own = (
        "--config-dir=own",
        "data=mine",
        "data.path=rows.jsonl",
        "callbacks=mine",
        "model=tiny_gpt2",
        "debug=fast",
        "output_dir=run",
    )
    code, _, err = llmft(*own)
    assert code == 2
    assert "data._target_=myllm.Mine: not allowed" in err
    assert "(allow_targets=[myllm])" in err
    code, out, err = llmft(*own, "allow_targets=[myllm]", "output_dir=run2")
    assert code == 0, err
    assert "hello from outside" in out
    assert json.loads((tmp_path / "run2" / "run.json").read_text())["data"]["kept"] == 20


def test_a_wrong_option_of_ones_own(llmft, tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text("defaults: [_base]\n")
    code, _, err = llmft("--config-dir=own", "data=min")
    assert code == 2
    assert (
        "data=min: no such option. Did you mean mine? There are: academic, alpaca, custom, keyword_qa, mine, mix" in err
    )
    code, _, err = llmft("--config-dir=nowhere")
    assert code == 2
    assert "--config-dir=nowhere: no such folder" in err
