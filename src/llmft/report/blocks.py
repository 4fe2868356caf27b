"""Sections of a report's details that are one or two sentences and a table: checks that a run may have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmft.metrics.format import format_number

MEANING = "Loss of the reference, and KL divergence on the base's own answer, in nats per token. Changed answers flag nothing."
# Shown on the page; evaluation.json has all.
CHANGED = 20
ROWS_OPEN = 5  # longer tables are folded


@dataclass(frozen=True)
class Block:
    """A section, rendered by ``run/blocks.html``.

    Attributes:
        id: Its anchor in the page.
        title: Its heading, and its name in the contents.
        sentences: What was found.
        amber: Whether the first sentence is a reservation.
        columns: The header of the table.
        rows: The cells of the table.
        folded: Whether the table is closed until somebody opens it (paper shows it).
    """

    id: str
    title: str
    sentences: tuple[str, ...]
    amber: bool = False
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    folded: bool = False


def blocks(record: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[Block]:
    """The sections that a run has data for, in their order on the page."""
    found = evaluation or {}
    return [
        *retention(found.get("retention")),
        *prove(record.get("prove")),
        *key_effects(record.get("prove_keys")),
        *near_duplicates((record.get("data") or {}).get("near_duplicates")),
    ]


def retention(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """What the model forgot: ``evaluation["retention"]``, per category, and the answers that changed."""
    if not found:
        return
    categories = found.get("categories") or {}
    means = {**categories, "all": found} if len(categories) != 1 else {"all": found}
    yield Block(
        "retention",
        "Retention",
        (str(found.get("sentence", "")), MEANING),
        amber=bool(found.get("flagged")),
        columns=("general rows", "rows", "loss before", "loss after", "KL from the base"),
        rows=tuple((name, str(entry.get("rows")), *_means(entry)) for name, entry in means.items()),
    )
    if changed := found.get("changed"):
        shown = changed[:CHANGED]
        yield Block(
            "changed-answers",
            "Changed answers to general rows",
            (
                f"{len(changed)} of {found['rows']} answers differ, which may be better or worse; the first {len(shown)}:",
            ),
            columns=("category", "question", "base", "tuned"),
            rows=tuple(
                tuple(str(row.get(name)) for name in ("category", "question", "base", "tuned")) for row in shown
            ),
            folded=True,
        )


def _means(entry: Mapping[str, Any]) -> list[str]:
    return [format_number(entry.get(name)) for name in ("loss_before", "loss_after", "kl")]


def prove(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """Whether an independent loop computed the same first steps: ``run.json``'s ``prove``."""
    if not found:
        return
    unchecked = [f"Not checked: {what} ({number})." for what, number in (found.get("not_checked") or {}).items()]
    compared = ("loss", "grad_norm", "lr")
    yield Block(
        "prove",
        "Training arithmetic",
        (str(found.get("sentence", "")), *unchecked),
        amber=not found.get("agrees"),
        columns=("step", "loss", "differs by", "gradient norm", "differs by", "learning rate", "differs by", "rows"),
        rows=tuple(
            (
                str(step["step"]),
                *(text for name in compared for text in (_digits(step.get(name), 6), _digits(step["difference"].get(name), 1))),
                ", ".join(map(str, step["rows"])),
            )
            for step in found.get("per_step") or ()
        ),
        folded=True,
    )  # fmt: skip


def _digits(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def near_duplicates(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """Held-out rows whose prompt is nearly one in train: ``run.json``'s ``data.near_duplicates``."""
    if not found or not found.get("examples"):
        return
    number, listed = found["found"], found["examples"]
    sentence = f"{number:,} held-out rows have a prompt that is nearly one in train: scores on them also measure memory"
    similarity = f"Similarity is the Jaccard index of word 5-grams, from {found.get('threshold')}."
    shown = f" The first {len(listed)} are listed." if len(listed) < number else ""
    yield Block(
        "near-duplicates",
        "Near-duplicates across splits",
        (sentence, similarity + shown),
        amber=True,
        columns=("split", "row", "row in train", "prompts alike", "replies alike"),
        rows=tuple(
            (
                str(line["split"]),
                str(line["place"]),
                str(line["train"]),
                f"{line['prompt']:.2f}",
                f"{line['reply']:.2f}",
            )
            for line in listed
        ),
        folded=len(listed) > ROWS_OPEN,
    )


def key_effects(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """What each key of the command line changed in the first steps: ``run.json``'s ``prove_keys``."""
    if not found:
        return
    rows = tuple((str(key), str(entry.get("sentence", ""))) for key, entry in (found.get("keys") or {}).items())
    sentence = str(found.get("sentence", ""))
    yield Block("keys", "What each key does", (sentence,), columns=("key", "effect"), rows=rows, folded=True)
