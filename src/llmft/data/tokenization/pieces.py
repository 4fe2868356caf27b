"""A rendered text as ``text, control token, text, ...``, and comparisons of such pieces."""

import itertools
from collections.abc import Sequence

Pieces = tuple[str, ...]


def rest_after(start: Pieces, whole: Pieces) -> Pieces | None:
    """What follows ``start`` in ``whole``; None if ``whole`` does not start with it."""
    last = len(start) - 1
    if len(whole) <= last or whole[:last] != start[:last] or not whole[last].startswith(start[last]):
        return None
    return (whole[last][len(start[last]) :], *whole[last + 1 :])


def ends_with(whole: Pieces, end: Pieces) -> bool:
    """Whether ``whole`` ends with ``end``."""
    first = len(whole) - len(end)
    return first >= 0 and whole[first + 1 :] == end[1:] and whole[first].endswith(end[0])


def common_start(*renderings: Pieces) -> Pieces:
    """The longest common start; it ends with text, never inside a control token."""
    same = 0
    shortest = min(map(len, renderings))
    while same < shortest and len({rendering[same] for rendering in renderings}) == 1:
        same += 1
    same -= same % 2  # a text differs, or the control token after it
    if same == shortest:
        return renderings[0][:shortest]
    chars = zip(*(rendering[same] for rendering in renderings), strict=False)
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, chars)
    return (*renderings[0][:same], "".join(column[0] for column in shared))


def common_end(one: Pieces, other: Pieces) -> Pieces:
    """The longest common end that is a run of ``control token, text`` pairs."""
    same = 0
    while same + 2 < min(len(one), len(other)) and one[-same - 2 :] == other[-same - 2 :]:
        same += 2
    return one[len(one) - same :]


def blank_run(end: Pieces) -> Sequence[str]:
    """The control tokens at the start of ``control token, text`` pairs that only white space separates."""
    run = list(end[:1])
    for text, control in zip(end[1::2], end[2::2], strict=False):
        if text.strip():
            break
        run.append(control)
    return run
