"""200 kills at random moments: ``python -m tests.robustness.soak`` takes other numbers, and more of them."""

import os

import pytest

from tests.robustness.soak.soak import Broken, Watch, soak
from tests.robustness.soak.strikes import STAGES, function_of


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "models"))
    tally = soak(200, 1, tmp_path, jobs=len(os.sched_getaffinity(0)))
    assert tally.total >= 200
    assert not tally.faults, "\n".join(tally.faults)
    assert len(tally.kills) > 12  # of the stages


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_function_of_llmft(stage):
    owner, name = function_of(stage)
    assert callable(getattr(owner, name))


def test_the_watch_sees_half_a_record(tmp_path):
    """The soak's own eyes: they must be able to find fault."""
    (tmp_path / "run.json").write_text('{"status": "runn')
    watch = Watch(tmp_path)
    with pytest.raises(Broken, match="JSONDecodeError"):
        watch.end()
