"""Predictions -> a judge's scores: asked, read strictly, kept in ``judge.jsonl``, and summed up."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmft.evaluation.judge import aggregate
from llmft.evaluation.judge.parse_reply import InvalidReply, choice_in, score_in
from llmft.evaluation.judge.requests import REMINDER, Request, requests
from llmft.metrics.predictions import Prediction
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)
READ: dict[str, Callable[[str], int | str]] = {"score": score_in, "pairwise": choice_in}


class Judge:
    """A judge and the file that keeps what it said.

    Args:
        settings: The config of the judge group; ``kind`` is not ``none``.
        file: ``judge.jsonl``; grows by a line for every finished request.

    Raises:
        UserError: The judge's address or key is not what it should be.
    """

    def __init__(self, settings: Any, file: Path) -> None:
        self.settings, self.file = settings, file
        if settings.kind == "model":
            from llmft.evaluation.judge.local_model import LocalModel

            self.backend: Any = LocalModel(settings)
        else:
            from llmft.evaluation.judge.http_client import Endpoint

            self.backend = Endpoint(settings)

    def judge(self, predictions: Sequence[Prediction], *, resamples: int, seed: int) -> dict[str, Any]:
        """Judge every row; finished scores of the same judge are taken from the file.

        Returns:
            ``summary`` (counts, reasons) and ``score``, an entry as of ``bootstrap.compare``. Row scores go into the predictions.

        Raises:
            UserError: The judge cannot be asked any more; what is finished is kept.
        """
        if self.settings.mode == "pairwise" and any(p.base_answer is None for p in predictions):
            raise UserError("judge.mode=pairwise: needs answers of the base model; evaluate.base=true makes them")
        asked = requests(predictions, self.settings, self.backend.identity())
        known = _known(self.file)
        open_ = [request for request in asked if not _recall(request, known)]
        log.info("judge %s: %d of %d scores to ask for", ", ".join(self.settings.models), len(open_), len(asked))
        self._ask(open_, [p.id for p in predictions])
        summary = {"kind": self.settings.kind, "mode": self.settings.mode, "models": list(self.settings.models)}
        summary |= {"seeds": list(self.settings.seeds), "reused": len(asked) - len(open_), **aggregate.counts(asked)}
        values = aggregate.pair_values(asked) if self.settings.mode == "pairwise" else aggregate.mean_values(asked)
        entry = aggregate.entry(values, len(predictions), resamples, seed)
        for row, prediction in enumerate(predictions):
            prediction.scores["judge"] = values["tuned"].get(row)
            if prediction.base_answer is not None:
                prediction.base_scores["judge"] = values["base"].get(row)
        return {"summary": summary | aggregate.pairs(values, self.settings.mode, len(predictions)), "score": entry}

    def _ask(self, open_: list[Request], ids: Sequence[str]) -> None:
        for attempt, reminder in enumerate(("", REMINDER[self.settings.mode])):
            left = [request for request in open_ if not request.finished]
            prompts, seeds = [r.prompt + reminder for r in left], [r.seed + attempt for r in left]

            def took(request: Request, reply: str | None, reason: str | None, *, last: bool = attempt == 1) -> None:
                self._take(request, reply, reason, last=last)
                if request.finished:
                    self._keep(request, ids[request.row])

            if left:
                self.backend.ask(left, prompts, seeds, took)

    def _take(self, request: Request, reply: str | None, reason: str | None, *, last: bool) -> None:
        if reply is None:
            request.reason = f"failed: {reason}"
            return
        request.replies.append(reply)
        try:
            request.result, request.reason, request.finished = READ[self.settings.mode](reply), None, True
        except InvalidReply as error:
            request.reason, request.finished = f"invalid: {error}", last

    def _keep(self, request: Request, row_id: str) -> None:
        line = {
            "id": row_id,
            "which": request.which,
            "mode": self.settings.mode,
            "model": request.model,
            "seed": request.seed,
        }
        line |= {"score": request.result, "reason": request.reason, "replies": request.replies, "cut": request.cut}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**line, "key": request.key}, ensure_ascii=True) + "\n")


def _known(file: Path) -> dict[str, dict[str, Any]]:
    """Finished requests by key; a line that was cut off by a kill is no fault."""
    found = {}
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []:
        try:
            row = json.loads(line)
            found[row["key"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _recall(request: Request, known: dict[str, dict[str, Any]]) -> bool:
    line = known.get(request.key)
    if line is None:
        return False
    request.result, request.reason, request.finished = line.get("score"), line.get("reason"), True
    request.replies = line.get("replies") or []
    return True


def judge_of(settings: Any, file: Path) -> Judge | None:
    """The judge that a config asks for, found to be there; None for ``judge=none``.

    Raises:
        UserError: It is not there, or may not be asked.
    """
    if settings.kind == "none":
        return None
    judge = Judge(settings, file)
    judge.backend.check()
    return judge


def add_judgement(
    judge: Judge, predictions: Sequence[Prediction], found: dict[str, Any], settings: Any, *, or_fail: bool
) -> None:
    """Put a judge's scores beside the others of an evaluation.

    Args:
        judge: Who is asked.
        predictions: What is judged; row scores are written into them.
        found: The content of ``evaluation.json``.
        settings: The ``evaluate`` keys.
        or_fail: Whether a judge that gives up is an error; else it is said, so that a finished training stays one.

    Raises:
        UserError: The judge gave up.
    """
    from llmft.metrics.compare import headline

    try:
        said = judge.judge(predictions, resamples=settings.resamples, seed=found["seed"])
    except UserError as error:
        if or_fail:
            raise
        log.error("%s; the answers are in predictions.jsonl: `evaluate input=` judges them later", error)
        found["judge"] = {"error": str(error)}
        return
    found["judge"] = said["summary"]
    found["scores"]["judge"] = said["score"]
    found["headline"] = headline(found["scores"])
