"""What the command lines of the storm read: a finished run, one that a guard halted, one that was interrupted, data and an archive."""

import shutil
from pathlib import Path

from tests.conftest import chat_row, forked, write_rows
from tests.robustness.faults import worse

TRAIN = ("model=tiny_gpt2", "peft=lora", "data=academic", "data.path=in/rows.jsonl", "data.batch_size=4", "data.cache=cache", "trainer.max_epochs=1", "trainer.log_every_n_steps=1",
         "questions=0", "evaluate.rows=2", "evaluate.resamples=100", "generation.max_new_tokens=2", "callbacks.samples.number=0", "callbacks.checkpoints.every_n_steps=2",
         "callbacks.progress=null")  # fmt: skip
SHORT = ("generation.max_new_tokens=2",)
# Each command, with what it needs; all that it writes goes to out/.
LINES: dict[str, tuple[str, ...]] = {
    "train": (*TRAIN, "output_dir=out/run"),
    "resume": ("resume=in/cut",),
    "sweep": ("-m", *TRAIN, "evaluate.rows=0", "report.write=false", "trainer.max_steps=1", "seed=1,2", "output_dir=out/sweep"),
    "preview": ("preview", "model=tiny_gpt2", "data=academic", "data.path=in/rows.jsonl", "data.cache=cache", "preview.rows=2"),
    "estimate": ("estimate", "model=tiny_gpt2", "data=academic", "data.path=in/rows.jsonl"),
    "answer": ("answer", "run=in/run", "question=Where is it?", *SHORT),
    "answer file": ("answer", "run=in/run", "input=in/questions.jsonl", "output=out/answers.jsonl", *SHORT),
    "answer base": ("answer", "model=tiny_t5", "questions=samples", "format=json", *SHORT),
    "chat": ("chat", "run=in/run", *SHORT),
    "evaluate": ("evaluate", "run=in/run", "evaluate.rows=2", "evaluate.resamples=100", *SHORT),
    "evaluate file": ("evaluate", "input=in/run/predictions.jsonl", "evaluate.resamples=100", "output=out/scored.jsonl"),
    "report": ("report", "run=in/run"),
    "leaderboard": ("report", "runs=in"),
    "replay": ("replay", "run=in/halted"),
    "export": ("export", "run=in/run", "to=out/exported", "form=adapter"),
    "restore": ("restore", "archive=in/run.zip", "to=out/restored"),
    "schema": ("schema", "to=out/schemas"),
    "help": ("--help",),
    "cfg": ("preview", "--cfg", "job"),
}  # fmt: skip
PRINTS_NOTHING_ELSE = ("train", "resume")  # its result is in files


def build(folder: Path) -> Path:
    """Make the inputs below ``folder/in``; returns that folder."""
    made = folder / "in"
    made.mkdir(parents=True)
    write_rows(made / "rows.jsonl", *(chat_row(f"Question {n}", f"Answer {n % 5}") for n in range(24)))
    write_rows(made / "questions.jsonl", *({"question": f"Question {n}?"} for n in range(3)))
    for name, more, before in (
        ("run", (), None),
        ("cut", ("evaluate.rows=0", "report.write=false"), worse.die_in_batch_five),
        ("halted", ("optim.lr=1e9", "callbacks.checkpoints.every_n_steps=null", "evaluate.rows=0", "report.write=false", "callbacks.gradient_clipping=null"), None),
    ):  # fmt: skip
        done = forked(*TRAIN, *more, f"output_dir=in/{name}", cwd=folder, before=before)
        assert (made / name / "run.json").exists(), done.stderr
    done = forked("export", "run=in/run", "to=in/run.zip", "zip=true", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return made


def place(inputs: Path, folder: Path) -> Path:
    """A folder for one case, with a copy of the inputs."""
    for name in ("home", "cache", "out", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(inputs, folder / "in", symlinks=True)
    return folder
