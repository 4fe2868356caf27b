"""Every atomic write, interrupted at each of its system calls: the old or the new content is there, complete, and nothing else.

An error (a full disk) is raised in place of each call. A kill leaves what is on the disk before a call: a copy is taken there,
cleaned up as the next process does it, and looked at. A power cut loses what was not flushed: each file must be flushed
before it gets its final name.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import GPT2Config, GPT2LMHeadModel

from llmft.config import redact
from llmft.diagnostics import postmortem
from llmft.evaluation import evaluator
from llmft.export import checksums, unzip
from llmft.export import zip as archives
from llmft.generation.save import save_model
from llmft.report.figures import Figure
from llmft.runs import resume
from llmft.runs.checkpoint_io import AtomicCheckpointIO
from llmft.runs.directory import RunDirectory
from llmft.utils import cache, csv, files
from llmft.utils.errors import UserError
from tests.conftest import composed, typed_config


class Saved:
    """Stands for a model, a tokenizer, a generation config: writes a file of its own."""

    chat_template = generation_config = None

    def __init__(self, name, text):
        self.name, self.text = name, text

    def save_pretrained(self, folder, **_):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / self.name).write_text(self.text)


class Drawn(Figure):
    def _save(self, to, *_, **__):
        to.write(self.title.encode())


def model(folder, version):
    tokenizer = Saved("tokenizer_config.json", json.dumps({"tokenizer_class": version}))
    codec = SimpleNamespace(tokenizer=tokenizer, template=SimpleNamespace(saved="template"))
    network = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    for parameter in network.parameters():
        parameter.data.fill_(len(version))
    generator: Any = SimpleNamespace(
        model=network, codec=codec, config=lambda: Saved("generation_config.json", version)
    )
    save_model(folder / "model", generator, typed_config(composed("peft=none")), "base")


def halt(folder, version):
    weight = torch.full((2, 2), float(len(version)))
    module: Any = SimpleNamespace(trainable_names=lambda: {"w"}, named_parameters=lambda: {"w": weight}.items())
    postmortem.write(folder / "halt", {"what": version}, postmortem.StepBatches(), module)


def best(folder, version):
    checkpoint(folder, version)
    files.atomic_link(folder / "last.ckpt", folder / "best.ckpt")


def checkpoint(folder, version):
    AtomicCheckpointIO().save_checkpoint({"global_step": version}, folder / "last.ckpt")


def source(folder):
    """What is exported: outside of the folder that is looked at."""
    made = folder.parent / "source"
    if not made.exists():
        (made / "sub").mkdir(parents=True)
        (made / "sub" / "weights").write_text("w" * 100)
        (made / "README.md").write_text("card")
        checksums.write(made)
    return made


def archive(folder, _):
    archives.pack(source(folder), folder / "run.zip")


def unpacked(folder, _):
    packed = folder.parent / "packed.zip"
    if not packed.exists():
        archives.pack(source(folder), packed)
    unzip.restore(packed, "packed.zip", folder / "restored", unzip.ArchiveLimits(10, 10_000, 10.0))


def exported(folder, _):
    with files.atomic_folder(folder / "exported", new=True) as unfinished:
        shutil.copytree(source(folder), unfinished, dirs_exist_ok=True)


def cached(folder, version):
    cache.cached_folder("rows", lambda unfinished: Saved("rows.arrow", version).save_pretrained(unfinished), folder)


# by name: how it is written, and whether there can be an old one
USERS = {
    "run.json": (lambda f, v: RunDirectory(f).update(status=v), True),
    "config.yaml": (lambda f, v: redact.save_config(OmegaConf.create({"seed": v}), f / "config.yaml"), True),
    "evaluation.json": (lambda f, v: evaluator.save_evaluation(f / "evaluation.json", {"headline": v}), True),
    "report.html": (lambda f, v: files.atomic_write(f / "report.html", v, errors="replace"), True),
    "loss.csv": (lambda f, v: csv.write(f / "loss.csv", [["step"], [v]]), True),
    "loss.png": (lambda f, v: Drawn("loss", v, "", lambda *_: None).png(f / "loss.png"), True),
    "last.ckpt": (checkpoint, True),
    "best.ckpt": (best, True),
    "model/": (model, True),
    "halt/": (halt, True),
    "export": (exported, False),
    "archive": (archive, False),
    "restored": (unpacked, False),
    "cache": (cached, False),
}  # fmt: skip
CALLS = ("fsync", "replace", "rename", "link")


class Disk:
    """The system calls of a write, counted; ``at`` a number it fails, and ``look`` is called before each."""

    def __init__(self, monkeypatch, *, exchange):
        self.count, self.at, self.look = 0, 0, lambda *_: None
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))
        if exchange:
            monkeypatch.setattr(files, "_exchange", self._counted("exchange", files._exchange))
        else:
            monkeypatch.setattr(files, "EXCHANGE", {})

    def _counted(self, name, real):
        def call(*given, **named):
            self.count += 1
            self.look(name, *given)
            if self.count == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **named)

        return call


def tree(folder):
    """Every file below a folder, but for locks, which stay."""
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.suffix != ".lock"
    }


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def disk(request, monkeypatch):
    return Disk(monkeypatch, exchange=request.param)


@pytest.fixture(params=USERS)
def user(request, tmp_path):
    """How to write it, a folder with the old content, the old and the new content."""
    write, has_old = USERS[request.param]
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    if has_old:
        write(tmp_path / "old", "before")
    write(tmp_path / "new", "after after")
    return write, tmp_path / "old", tree(tmp_path / "old"), tree(tmp_path / "new")


def renewed(old, new):
    """The states of a folder with several files that are each written atomically: one after the other is the new one."""
    states = [old]
    for name in ("last.ckpt", "best.ckpt") if "best.ckpt" in new else ():
        states.append({**states[-1], name: new[name]})
    return [*states, new]


def test_an_error_at_any_call_leaves_the_old_or_the_new(user, disk, tmp_path):
    write, before, old, new = user
    assert old != new
    number = 0
    for number in range(1, 100):
        folder = tmp_path / f"at{number}"
        shutil.copytree(before, folder)
        disk.count, disk.at = 0, number
        try:
            write(folder, "after after")
        except (OSError, UserError) as error:
            message = str(error)
        else:
            message = None  # after a failed link(2) the file is copied
        if message is None:
            assert tree(folder) == new
        else:
            assert os.strerror(errno.ENOSPC) in message
            assert ".tmp" not in message
            assert "None" not in message
            assert tree(folder) in renewed(old, new)
        if disk.count < number:
            break
        shutil.rmtree(folder)
    assert number > 2


def test_a_kill_at_any_call_leaves_the_old_or_the_new(user, disk, tmp_path):
    write, folder, old, new = user
    kept = []

    def look(*_):
        kept.append(tmp_path / f"killed{len(kept)}")
        shutil.copytree(folder, kept[-1])

    disk.look = look
    write(folder, "after after")
    look()
    disk.look = lambda *_: None
    assert len(kept) > 2
    for left in kept:
        files.remove_unfinished(left)
        assert tree(left) in renewed(old, new)
    assert tree(kept[0]) == old
    assert tree(kept[-1]) == tree(folder) == new


def test_a_file_is_flushed_before_it_has_its_name_and_the_name_afterwards(user, disk):
    write, folder, _, new = user
    flushed, names = set(), set()

    def look(name, *given):
        if name == "fsync":
            at = os.fstat(given[0])
            flushed.add(at.st_ino)
            names.discard(at.st_ino)
        elif name in ("replace", "rename", "exchange"):
            one, other = map(Path, given)
            if other.name.endswith(files.SET_ASIDE):
                return
            for file in [one, *one.rglob("*")] if one.is_dir() else [one]:
                assert file.stat().st_ino in flushed, file
            names.add(other.parent.stat().st_ino)

    disk.look = look
    write(folder, "after after")
    assert tree(folder) == new
    assert not names


def flushed_at(disk, event):
    """The inodes that were flushed when ``event(name, *given)`` was first true, and at the end."""
    flushed, seen = set(), []

    def look(name, *given):
        if name == "fsync":
            flushed.add(os.fstat(given[0]).st_ino)
        elif event(name, *given) and not seen:
            seen.append(set(flushed))

    disk.look = look
    return lambda: (seen[0], flushed)


def test_a_copied_run_is_on_the_disk_before_it_has_a_record(disk, tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    checkpoint(run / "checkpoints", "one")
    RunDirectory(run).update(status="interrupted")
    found = flushed_at(disk, lambda name, *given: name == "replace" and Path(given[1]) == copy / "run.json")
    resume._copy(run, copy)
    before, _ = found()
    assert {place.stat().st_ino for place in (copy, copy / "checkpoints", copy / "checkpoints" / "last.ckpt")} <= before


def test_the_name_of_a_new_folder_is_flushed_with_its_first_checkpoint(disk, tmp_path):
    found = flushed_at(disk, lambda name, *_: name == "replace")
    checkpoint(tmp_path / "run" / "checkpoints", "one")
    assert {place.stat().st_ino for place in (tmp_path, tmp_path / "run")} <= found()[0]


def test_a_folder_that_others_may_have_made_is_not_replaced(tmp_path):
    def slow():
        with files.atomic_folder(tmp_path / "to", new=True) as mine:
            (mine / "mine").touch()
            (tmp_path / "to").mkdir()
            (tmp_path / "to" / "theirs").touch()

    with pytest.raises(OSError, match="not empty") as raised:
        slow()
    assert str(raised.value).endswith(f"'{tmp_path / 'to'}'")
    assert tree(tmp_path) == {"to/theirs": b""}


def test_a_folder_that_was_set_aside_comes_back_unless_its_successor_is_there(tmp_path):
    for name in ("model.old.tmp", "halt.old.tmp", "halt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    files.restore_folder(tmp_path / "model")
    files.restore_folder(tmp_path / "halt")
    files.restore_folder(tmp_path / "none")
    assert tree(tmp_path) == {"model/model.old.tmp": b"", "halt/halt": b""}


def test_this_system_exchanges_two_folders_in_one_call(tmp_path):
    """Otherwise the tests above would run the second way twice."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system has no such call")
    assert tree(tmp_path) == {"one/other": b"", "other/one": b""}
