"""Notes on the texts of a data set: unfilled placeholders, HTML in answers, answers that begin alike, one answer for all."""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import numpy as np

from llmft.data.preprocessing.arrow_store import Examples, RowColumns
from llmft.data.preprocessing.text_marks import OPENING, html_in, of_own_design, placeholder_in
from llmft.data.records import shown

# From this share of the answers, the beginning is what a model learns first. In the data sets that llmft was tried with,
# the most frequent beginning has at most 0.08 of the answers.
ALIKE = 0.5
# From this share of the prompts an answer is a phrase for everything; there it is at most 0.017. Labels and JSON, which
# are few by design, count only if nearly all are the same.
SAME, ALL_SAME = 0.1, 0.9
LABEL_WORDS = 5  # an answer of fewer words is a label
FEWEST = {"alike": 20, "same": 5}  # answers; fewer may agree by chance
READ = 200  # answers that begin alike are read to find how far they agree
WIDTH = 60


def text_notes(columns: RowColumns, examples: Examples, rows: np.ndarray) -> list[dict[str, Any]]:
    """What is worth knowing of the texts, each a mapping for ``note_line``; empty if there is nothing.

    Args:
        columns: Of all rows.
        examples: All examples.
        rows: The rows of all splits; of several rows of one example, the last one counts.
    """
    owners = columns["example"][rows]
    _, last = np.unique(owners[::-1], return_index=True)
    rows = rows[::-1][last]
    found = [*_marked(columns, examples, rows)]
    same = _same(columns, examples, rows)
    alike = _alike(columns, examples, rows)
    if same and alike and alike["rows"] <= same["rows"]:
        alike = None  # it is the beginning of that one answer
    return [*found, *filter(None, (alike, same))]


def note_line(note: Mapping[str, Any]) -> str:
    """A note as a sentence, with a place."""
    rows, total, text, place = f"{note['rows']:,}", f"{note['of']:,}", note["text"], note["place"]
    words = {
        "placeholders": f"{rows} of {total} rows have an unfilled placeholder such as {text} ({place})",
        "html": f"{rows} of {total} answers have HTML such as {text} ({place})",
        "alike": f"{rows} of {total} answers begin with {text} ({place})",
        "same": f"one answer for {rows} of {total} different prompts: {text} ({place})",
    }
    return words[note["note"]]


def _marked(columns: RowColumns, examples: Examples, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    for name, column in (("placeholders", "placeholder"), ("html", "html")):
        marked = rows[columns[column][rows]]
        if len(marked):
            example = examples.make(int(columns["example"][marked].min()))
            text = placeholder_in(example.texts()) if name == "placeholders" else html_in(example)
            yield _note(name, len(marked), len(rows), text[:WIDTH], example.place)


def _alike(columns: RowColumns, examples: Examples, rows: np.ndarray) -> dict[str, Any] | None:
    """The most frequent beginning, if it has a share of ``ALIKE``; as far as these answers agree."""
    openings = columns["opening"][rows]
    most, count = _most_frequent(openings[openings != 0])
    if len(rows) < FEWEST["alike"] or count < ALIKE * len(rows):
        return None
    numbers = np.sort(columns["example"][rows[openings == most]])[:READ]
    group = [examples.make(int(number)) for number in numbers]
    answers = [example.answer for example in group]
    columns_of_words = zip(*(answer.split() for answer in answers), strict=False)
    agreed = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns_of_words)]
    if len(agreed) < OPENING:  # they differ in case or punctuation
        agreed = answers[0].split()[:OPENING]
    text = " ".join(agreed)
    return _note("alike", count, len(rows), shown(text, WIDTH), group[0].place)


def _same(columns: RowColumns, examples: Examples, rows: np.ndarray) -> dict[str, Any] | None:
    """The answer that most different prompts have, if it has a share of ``SAME`` of them."""
    answers, prompts = columns["answer"][rows], columns["prompt_like"][rows]
    order = np.lexsort((prompts, answers))
    answers, prompts = answers[order], prompts[order]
    different = np.ones(len(answers), bool)
    different[1:] = (answers[1:] != answers[:-1]) | (prompts[1:] != prompts[:-1])
    most, count = _most_frequent(answers[different])
    total = len(np.unique(prompts))
    if count < max(FEWEST["same"], SAME * total):
        return None
    example = examples.make(int(columns["example"][rows[columns["answer"][rows] == most]].min()))
    if of_own_design(example.answer, LABEL_WORDS) and count < ALL_SAME * total:
        return None
    return _note("same", count, total, shown(example.answer, WIDTH), example.place)


def _most_frequent(values: np.ndarray) -> tuple[int, int]:
    """The most frequent value and how often it occurs; zeros if there are none."""
    found, counts = np.unique(values, return_counts=True)
    return (int(found[counts.argmax()]), int(counts.max())) if len(found) else (0, 0)


def _note(name: str, rows: int, of: int, text: str, place: str) -> dict[str, Any]:
    return {"note": name, "rows": rows, "of": of, "text": text, "place": place}
