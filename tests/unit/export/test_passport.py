"""The verdict of a passport, with a runtime that returns numbers stated here."""

from collections.abc import Sequence
from io import StringIO

import numpy as np
import pytest

from llmft.data.records import Turn
from llmft.export import passport_file
from llmft.export.passport import Check, Judged, compare, not_checked, tolerance_of
from llmft.export.reference import HeldOut, Reference, ReferenceAnswer
from llmft.runtimes.loss import answer_loss
from llmft.utils.console import Console

STOP = 3
# Three ids and the stop token; the two best of the second position are 0.5 apart.
LOGITS = np.array([[0, 4, 1, 0], [0, 0, 2.5, 2], [0, 0, 0, 5]], dtype=np.float32)
HOW = Judged("merged", "float32", None, tolerance=0.1, max_loss_increase=0.05)


class Fake:
    """A runtime with the logits, ids and stop tokens that a test states."""

    name = "Fake 1.0"

    def __init__(self, logits=LOGITS, ids=(1, 2, STOP), prompt=(7, 8), stops=(STOP,)) -> None:
        self.found, self.ids, self.prompt, self.stop_ids = logits, list(ids), list(prompt), frozenset(stops)

    def prompt_ids(self, turns: Sequence[Turn], tools: Sequence[str] = ()) -> list[int]:  # noqa: ARG002
        return self.prompt

    def decode(self, ids: Sequence[int]) -> str:
        return str(ids)

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:  # noqa: ARG002
        return self.found[: len(answer)]

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        return [self.ids[:max_new_tokens] for _ in prompts]


def reference(rows=(), loss=float("nan"), logits=LOGITS):
    one = ReferenceAnswer((Turn("user", "Why?"),), [7, 8], [1, 2, STOP], logits)
    return Reference([one], STOP, frozenset({STOP}), list(rows), "test", loss)


def verdicts(found):
    return {check.name: check.passed for check in found.checks}


def test_an_equal_model_passes():
    found = compare(Fake(LOGITS + 0.05), reference(), HOW)
    assert (found.status, found.runtime) == ("passed", "Fake 1.0")
    assert found.difference == pytest.approx(0.05, abs=1e-6)
    assert verdicts(found) == dict.fromkeys(("prompt ids", "stop token", "logits", "greedy answers"), True)


@pytest.mark.parametrize(
    ("runtime", "check"),
    [
        (Fake(LOGITS + 0.2), "logits"),
        (Fake(np.full_like(LOGITS, np.nan)), "logits"),
        (Fake(prompt=(7, 7, 8)), "prompt ids"),  # a second BOS
        (Fake(stops=(9,)), "stop token"),
        (Fake(ids=(1, 1, STOP)), "greedy answers"),  # differs where the two best are 0.5 apart
        (Fake(ids=(1, 2)), "greedy answers"),  # never stops
    ],
)
def test_each_difference_fails_by_name(runtime, check):
    found = compare(runtime, reference(), HOW)
    assert found.status == "failed"
    assert verdicts(found)[check] is False
    assert check in passport_file.fault(found)


def test_an_answer_may_differ_from_a_near_tie_on():
    wide = HOW._replace(tolerance=0.6)
    found = compare(Fake(ids=(1, 3)), reference(), wide)
    assert found.status == "passed"
    assert found.later == ("'Why?' differs from token 2 on (two best 0.5 apart)",)
    assert compare(Fake(ids=(2, 2, STOP)), reference(), wide).status == "failed"  # before the near tie


def test_padded_rows_of_the_vocabulary_are_not_compared():
    padded = np.hstack([LOGITS, np.full((3, 2), 99, dtype=np.float32)])
    assert compare(Fake(padded), reference(), HOW).difference == 0


def test_quantized_weights_are_judged_by_the_loss():
    flat = np.zeros_like(LOGITS)  # ln 4 nats for each token
    how = HOW._replace(form="gguf", quantize="q8_0")
    rows = [HeldOut([7], [1, 2])]
    assert answer_loss(Fake(flat), [7], [1, 2]) == pytest.approx(2 * np.log(4))
    kept = compare(Fake(flat, ids=(0,)), reference(rows, loss=float(np.log(4)) - 0.04), how)
    assert kept.status == "passed"
    assert verdicts(kept)["logits"] is None
    assert verdicts(kept)["greedy answers"] is None
    assert ("held-out loss", True) in verdicts(kept).items()
    refused = compare(Fake(flat), reference(rows, loss=float(np.log(4)) - 0.06), how)
    assert "held-out loss: 1.3263 to 1.3863 (+0.0600) on 1 test rows" in passport_file.fault(refused)
    assert compare(Fake(np.full_like(flat, np.nan)), reference(rows, loss=1.0), how).status == "failed"


def test_tolerances_follow_the_dtype_and_the_largest_logit():
    assert tolerance_of("merged", "float32", reference()) == 1e-3
    assert tolerance_of("merged", "bfloat16", reference()) == pytest.approx(16 * 5 / 256)
    assert tolerance_of("merged", "float16", reference()) == pytest.approx(16 * 5 / 2048)


def test_a_form_has_checks_of_its_own():
    found = compare(Fake(), reference(), HOW, [Check("tied head", False, "tied", "untied")])
    assert (found.status, passport_file.fault(found)) == ("failed", "tied head: tied (wanted: untied)")


def test_the_table_fits_80_columns_and_the_card_has_it_too():
    console = Console(file=StringIO(), width=80, highlight=False)
    found = compare(Fake(ids=(1, 3)), reference(), HOW._replace(tolerance=0.6))
    passport_file.show(found, console)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "merged, float32 in Fake 1.0: passed" in shown
    assert "after a near tie: 'Why?' differs from token 2 on" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "| logits | 0 | at most 0.6 | yes |" in passport_file.section(found)


def test_what_was_not_checked_is_never_called_fine():
    found = not_checked(HOW, 'pip install "llmft[gguf]"')
    console = Console(file=StringIO(), width=80, highlight=False)
    passport_file.show(found, console)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "not checked" in shown
    assert 'pip install "llmft[gguf]"' in shown
    assert "passed" not in shown
    assert passport_file.section(found)[0].startswith("Not checked:")
