"""Streaming: the pieces add up to the answer, stop strings are never emitted; sampling depends on seed and prompt only."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmft.generation.sampling import Sampling, sample_tokens
from llmft.generation.stream import Stream

STOP = 256


def stream(**options):
    """A stream over bytes: a token is a byte, 256 ends it."""
    codec: Any = SimpleNamespace(
        decode=lambda ids: bytes(ids).decode("utf-8", "replace"),
        lead=options.pop("lead", ""),
    )
    pieces: list[str] = []
    closed: list[bool] = []
    made = Stream(
        [1], options.pop("limit", 1000), codec, frozenset({STOP}), emit=pieces.append, closed=lambda: closed.append(True), **options
    )  # fmt: skip
    return made, pieces, closed


def fed(made, text, *, stop=True):
    for token in [*text.encode(), *([STOP] if stop else [])]:
        if made.reason is None:
            made.take(token)
    return made


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_the_pieces_are_the_answer(text):
    made, pieces, closed = stream()
    fed(made, text)
    assert "".join(pieces) == made.text == text
    assert (made.reason, closed) == ("stop", [True])
    assert not any("\ufffd" in piece for piece in pieces)  # no character comes in halves


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_a_stop_ends_the_answer_and_none_of_it_is_emitted(text, stops):
    made, pieces, closed = stream(stops=stops)
    fed(made, text)
    cuts = [text.find(stop) for stop in stops if stop in text]
    # the first that is complete decides; of several that end with one character, the one that begins first
    ends = sorted((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text)
    wanted = text[: min(at for end, at in ends if end == ends[0][0])] if ends else text
    assert "".join(pieces) == wanted
    assert (made.reason, closed) == ("stop", [True])
    assert bool(cuts) == (len(made.ids) <= len(text.encode()) and bool(ends))


def test_a_piece_comes_as_soon_as_nothing_can_change_it():
    made, pieces, _ = stream(stops=["END"])
    for token in b"an EN":
        made.take(token)
    assert "".join(pieces) == "an "
    made.take(ord("d"))
    assert "".join(pieces) == "an ENd"


@pytest.mark.parametrize(
    ("text", "said", "reason"),
    [
        ("skills", "skills", "stop"),
        ("to KILL him", "to ", "filtered"),
        ("to kill", "to ", "filtered"),
        ("kill, or", "", "filtered"),
        ("over kill-joy", "over ", "filtered"),
    ],
)
def test_a_banned_word_ends_the_answer_where_it_stands_alone(text, said, reason):
    made, pieces, _ = stream(banned=["kill"])
    fed(made, text)
    assert ("".join(pieces), made.reason) == (said, reason)


def test_limits():
    made, pieces, _ = stream(limit=3)
    fed(made, "abcdef")
    assert ("".join(pieces), made.reason, len(made.ids)) == ("abc", "length", 3)
    made, pieces, _ = stream(max_characters=2)
    fed(made, "abcdef")
    assert ("".join(pieces), made.reason) == ("ab", "length")


def test_the_lead_of_a_template_is_never_emitted():
    made, pieces, _ = stream(lead="  ")
    made.codec.decode = lambda ids: bytes(ids).decode().removeprefix("  ")
    fed(made, "  Yes")
    assert "".join(pieces) == "Yes"


def test_a_cancelled_stream_takes_nothing_more():
    made, pieces, closed = stream()
    made.take(ord("a"))
    made.cancelled = True
    made.take(ord("b"))
    made.end("length")
    made.fail()
    assert ("".join(pieces), made.reason, closed, made.ids) == ("a", "cancelled", [True], [ord("a")])


def test_sampling_follows_the_distribution_and_the_seed():
    scores = torch.tensor([[2.0, 1.0, 0.0, -5.0]])
    draw = Sampling({"temperature": 2.0, "top_k": 3}, seed=1)
    drawn = torch.tensor([sampled(draw, scores) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=4) / 4000
    wanted = torch.softmax(torch.tensor([1.0, 0.5, 0.0]), dim=0)
    assert torch.allclose(shares, torch.cat([wanted, torch.zeros(1)]), atol=0.03)
    again = Sampling({"temperature": 2.0, "top_k": 3}, seed=1)
    assert [sampled(again, scores) for _ in range(20)] == drawn[:20].tolist()


def sampled(draw, scores):
    return int(sample_tokens({0: draw}, torch.zeros(1, 1).long(), scores).argmax())


def test_seed_sample_and_prompt_each_change_the_tokens():
    scores = torch.zeros(1, 1000)

    def draws(*arguments, **options):
        draw = Sampling({}, *arguments, **options)
        return tuple(sampled(draw, scores) for _ in range(5))

    first = draws(7, sample=0, prompt=[1, 2])
    assert draws(7, sample=0, prompt=[1, 2]) == first
    others = {draws(8, prompt=[1, 2]), draws(7, sample=1, prompt=[1, 2]), draws(8, sample=1, prompt=[1, 2])}
    others |= {draws(7, prompt=[2, 1]), draws(7, prompt=[])}
    assert len({first, *others}) == 6


def test_rows_with_different_settings_are_sampled_in_one_batch():
    scores = torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 1.0], [3.0, 5.0, 4.0], [9.0, 0.0, 0.0]])
    rows = {
        0: Sampling({"top_k": 1}, 0),
        1: Sampling({"temperature": 100.0}, 1),
        3: Sampling({"top_k": 1, "temperature": 3.0}, 0),
    }
    out = sample_tokens(rows, torch.zeros(4, 1).long(), scores)
    alone = [sampled(Sampling({"temperature": 100.0}, 1), scores[1:2])]
    assert out.argmax(dim=1).tolist() == [1, *alone, 1, 0]
    assert torch.equal(out[2], scores[2])  # greedy
