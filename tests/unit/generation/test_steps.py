"""Between two steps on CUDA: tokens are passed on one step later, none is lost, and nobody waits."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmft.generation import steps
from llmft.generation.steps import Take
from llmft.generation.stream import Stream

END = 9


class Ids:
    """Token ids that say they are on CUDA; a copy of them is there when the next step begins."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @property
    def shape(self) -> Any:
        return self.held.shape

    def __getitem__(self, at: Any) -> "Ids":
        return Ids(self.held[at])

    def to(self, where: str, *, non_blocking: bool) -> torch.Tensor:
        assert (where, non_blocking) == ("cpu", True)
        return self.held


class Event:
    """The copy is done as soon as it is asked for."""

    def record(self) -> None: ...

    def query(self) -> bool:
        return True


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(steps, "sent", lambda tensor, _: tensor)
    return request.param


def stream(limit=10):
    codec: Any = SimpleNamespace(decode=str, lead="")
    return Stream([1], limit, codec, frozenset({END}))


def run(device, streams, tokens, pause=lambda: False):
    """Feed one row of tokens a step, until it stops; the number of steps."""
    take, ids = Take(streams, 1, pause), torch.ones(len(streams), 1, dtype=torch.long)
    for number, new in enumerate(tokens, 1):
        ids = torch.cat([ids, torch.tensor(new)[:, None]], 1)
        given: Any = ids if device == "cpu" else Ids(ids)
        if take(given).all():
            take.finish()
            return number
    raise AssertionError("it does not stop")


def test_every_token_is_taken_once_and_the_last_ones_at_the_end(device):
    both = [stream(), stream()]
    assert run(device, both, [(2, 3), (4, END), (5, 0), (END, 0), (0, 0)]) >= 4
    assert [one.ids for one in both] == [[2, 4, 5], [3]]
    assert [one.reason for one in both] == ["stop", "stop"]


def test_a_pause_loses_no_token(device):
    both = [stream(), stream()]
    assert run(device, both, [(2, 3), (4, 5)], pause=lambda: True) == 1
    assert [one.ids for one in both] == [[2], [3]]


def test_what_the_host_alone_ends_ends_one_step_late_on_cuda_and_has_no_token_more(device):
    cut = [stream(limit=2)]
    assert run(device, cut, [(2,), (3,), (4,), (5,)]) == (2 if device == "cpu" else 3)
    assert (cut[0].ids, cut[0].reason) == ([2, 3], "length")
