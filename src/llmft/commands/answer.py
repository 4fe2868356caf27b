"""``answer``: ask a run (or a plain model) one question or a file of them."""

import json
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from llmft import session
from llmft.check import check
from llmft.commands.summary import printable
from llmft.config import user_path
from llmft.errors import UserError
from llmft.generation import Answer
from llmft.loaded import load_generator
from llmft.records import Example, RowError, Turn, text_of
from llmft.sources import lines_of, read_file


def main(cfg: DictConfig) -> None:
    """Answer ``question`` or every row of ``input``."""
    session.quiet()
    session.log_to(None)
    check(cfg)
    if (cfg.question is None) == (cfg.input is None):
        raise UserError('answer: pass either question="..." or input=FILE')
    check_output(cfg.output)
    questions = (
        list(_questions(cfg.input)) if cfg.input is not None else [Example((Turn("user", str(cfg.question)),), "")]
    )
    if not questions:
        raise UserError(f"input={cfg.input}: holds no question")
    if not all(turn.content.strip() for example in questions for turn in example.context):
        raise UserError("question: must not be blank")
    generator, system = load_generator(cfg)
    asked = [example.with_system(cfg.system or system) for example in questions]
    answers = generator.answers([example.context for example in asked])
    _write(cfg, questions, answers)


def check_output(output: str | None) -> None:
    """Find out before any work that a file cannot be written.

    Raises:
        UserError: It is a folder, or in none that there is.
    """
    if output is None:
        return
    file = user_path(output)
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UserError(f"output={output}: {why}")


def _questions(path: str) -> Iterator[Example]:
    file = user_path(path)
    if not file.is_file() or file.suffix not in (".txt", ".json", ".jsonl"):
        raise UserError(f"input={path}: must be a .jsonl, .json or .txt file that is there")
    if file.suffix == ".txt":
        for number, line in lines_of(path, file):
            if line.strip():
                yield Example((Turn("user", line.strip()),), "", str(number), f"{path}:{number}")
        return
    faults = []
    for located in read_file(path, file):
        try:
            if located.fault:
                raise RowError("row", located.fault)
            yield _question(located.row, located.place)
        except RowError as error:
            faults.append(f"{located.place}: {error}")
    if faults:
        raise UserError.from_faults(f"input={path}", faults)


def _question(row: Any, place: str) -> Example:
    turn = Turn("user", text_of(row, "question"), text_of(row, "input", blank=True) if "input" in row else "")
    example = Example((turn,), "", str(row.get("id", place.rpartition(":")[2])), place)
    return example.with_system(text_of(row, "system") if "system" in row else None)


def _write(cfg: DictConfig, questions: list[Example], answers: list[Answer]) -> None:
    rows = [
        {"id": example.id, "question": example.context[-1].content, "answer": answer.text, "ended": answer.ended}
        for example, answer in zip(questions, answers, strict=True)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if cfg.output:
        user_path(cfg.output).write_text(text, encoding="utf-8")
        console.print(f"{len(rows)} answers: {cfg.output}")
    elif cfg.format == "json":
        console.file.write(text)
    else:
        for row in rows:
            console.print((f"{printable(row['question'])}\n" if len(rows) > 1 else "") + printable(row["answer"]))
