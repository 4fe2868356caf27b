"""Files as people have them: what is said of each, to the letter, and how many rows are kept."""

import contextlib
import io
import re
import shlex

import pytest

from llmft.config.override_text import quoted
from llmft.data.auto import with_data_set
from llmft.data.datamodule import open_data
from llmft.utils.errors import UserError
from tests.conftest import ROOT
from tests.support.data_shapes import CASES, Case
from tests.support.text_notes import notes_of

REPRO = ROOT.parent / "shared" / "repro"
SETS = ("academic", "alpaca", "openorca", "psychology", "keyword_qa", "support", "custom")
WAY = re.compile(r"; (data=.*?)(?: or (data=.*?))? reads ")


@pytest.fixture
def opened(load_config):
    """What is said of a file, and its data module if it is accepted."""

    def read(*options: str):
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            try:
                rest = with_data_set("train", [quoted(option, multirun=False) for option in options])
                data = open_data(load_config(*rest, "data.cache=off").data)
                data.read()
            except UserError as error:
                return f"{err.getvalue()}{error}", None
        return err.getvalue().strip(), data

    return read


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_said_of_a_file(case: Case, opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path)
    text, data = opened(f"data.path={case.name}", *shlex.split(case.options))
    assert text.replace("llmft: ", "") == case.said
    assert (len(data.examples) if data else 0) == case.kept
    assert tuple(data.row_counts.read_as if data else ()) == case.read_as
    assert tuple(notes_of(list(data.examples)) if data else ()) == case.notes


def follow(file: str, text: str, opened) -> int:
    """Follow the options that a message proposes: the number of them, each of which reads the file."""
    ways = [way for match in WAY.finditer(text) for way in match.groups() if way]
    for way in ways:
        said, data = opened(f"data.path={file}", *shlex.split(way))
        assert data is not None, f"{file}: {way} is proposed, which says {said}"
    return len(ways)


@pytest.mark.parametrize("name", ["academic", *(pytest.param(name, marks=pytest.mark.slow) for name in SETS[1:])])
def test_whoever_follows_a_hint_arrives(name, opened, tmp_path, monkeypatch):
    """Of each file through each data set: where another one is proposed, it reads the rows."""
    monkeypatch.chdir(tmp_path)
    followed = 0
    for case in CASES:
        case.write(tmp_path)
        text, _ = opened(f"data.path={case.name}", f"data={name}")
        followed += follow(case.name, text, opened)
    assert followed > 10 or name == "custom"  # which names columns


@pytest.mark.slow
@pytest.mark.skipif(not REPRO.is_dir(), reason="the files of the first trial are not in the repository")
@pytest.mark.parametrize("name", SETS)
def test_whoever_follows_a_hint_arrives_with_the_files_of_the_first_trial(name, opened):
    followed = 0
    for file in sorted(REPRO.iterdir()):
        text, _ = opened(f"data.path={file}", f"data={name}")
        followed += follow(str(file), text, opened)
    assert followed > 10 or name in ("academic", "custom")
