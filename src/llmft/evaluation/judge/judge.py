"""Score predictions with an LLM judge; requests are stored in ``judge.jsonl``, and finished ones are reused."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmft.config.schema import judge as schema
from llmft.config.schema.evaluation import Evaluate
from llmft.evaluation.judge import aggregate
from llmft.evaluation.judge.parse_reply import InvalidReply, parse_choice, parse_score
from llmft.evaluation.judge.requests import REMINDER, Request, build_requests
from llmft.metrics.predictions import Prediction
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)
PARSERS: dict[str, Callable[[str], int | str]] = {"score": parse_score, "pairwise": parse_choice}


class Judge:
    """An LLM judge and the file of its replies.

    Args:
        settings: The config of the judge group; ``kind`` is not ``none``.
        file: ``judge.jsonl``; one line is appended per request, also per failed one.
        device: Where a local model runs; None for the default device.

    Raises:
        UserError: The judge's URL is not allowed, or its API key is missing.
    """

    def __init__(self, settings: schema.Judge, file: Path, device: Any = None) -> None:
        self.settings, self.file = settings, file
        if isinstance(settings, schema.ModelJudge):
            from llmft.evaluation.judge.local_model import LocalModel  # transformers

            self.backend: Any = LocalModel(settings, device)
        else:
            from llmft.evaluation.judge.http_client import HttpJudge  # aiohttp

            assert isinstance(settings, schema.HttpJudge)
            self.backend = HttpJudge(settings)

    def judge(self, predictions: Sequence[Prediction], *, resamples: int, seed: int) -> dict[str, Any]:
        """Judge all predictions and set their row scores; finished requests of the same judge are reused from the file.

        A failed request costs its row; the next call sends it again.

        Returns:
            ``summary`` (counts, reasons) and ``score``, an entry as of ``bootstrap.compare``.

        Raises:
            UserError: No request got a reply.
        """
        mode, models = self.settings.mode, list(self.settings.models)
        if mode == "pairwise" and any(p.base_answer is None for p in predictions):
            raise UserError("judge.mode=pairwise: needs answers of the base model; set evaluate.base=true")
        all_requests = build_requests(predictions, self.settings, self.backend.identity())
        finished, failed = _read_stored(self.file)
        pending = [request for request in all_requests if not _reuse(request, finished)]
        pending.sort(key=lambda request: request.key in failed)  # last, since several in a row end the judging
        log.info("judge %s: %d of %d requests to send", ", ".join(models), len(pending), len(all_requests))
        self._query(pending, [p.id for p in predictions])
        self._check_replies(all_requests)
        values = (aggregate.pairwise_scores if mode == "pairwise" else aggregate.mean_scores)(all_requests)
        for row, prediction in enumerate(predictions):
            prediction.scores["judge"] = values["tuned"].get(row)
            if prediction.base_answer is not None:
                prediction.base_scores["judge"] = values["base"].get(row)
        summary = {"kind": self.settings.kind, "mode": mode, "models": models, "seeds": list(self.settings.seeds)}
        summary |= {"reused": len(all_requests) - len(pending), **aggregate.request_counts(all_requests)}
        summary |= aggregate.outcome_counts(values, mode, len(predictions))
        return {"summary": summary, "score": aggregate.score_entry(values, len(predictions), resamples, seed)}

    def _query(self, pending: list[Request], ids: Sequence[str]) -> None:
        """Send the requests; those with an invalid reply once more with a reminder and another seed."""
        for attempt, reminder in enumerate(("", REMINDER[self.settings.mode])):
            unfinished = [request for request in pending if not request.finished and (request.replies or not attempt)]
            prompts, seeds = [r.prompt + reminder for r in unfinished], [r.seed + attempt for r in unfinished]

            def on_reply(request: Request, reply: str | None, reason: str | None, *, last: bool = attempt == 1) -> None:
                self._record(request, reply, reason, last=last)
                if request.finished or reply is None:
                    self._append(request, ids[request.row])

            if unfinished:
                self.backend.query(unfinished, prompts, seeds, on_reply)

    def _check_replies(self, requests: Sequence[Request]) -> None:
        """Warn about failed requests.

        Raises:
            UserError: All requests failed.
        """
        failed = [request for request in requests if not request.finished]
        if not failed:
            return
        reasons = Counter(str(request.reason).removeprefix("failed: ") for request in failed)
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        if len(failed) == len(requests):
            raise UserError(f"judge={self.settings.kind}: all {len(requests)} requests failed: {why}")
        log.warning(
            "judge: %d of %d requests failed, and their rows have no score: %s; run the same command again to send them again",
            *(len(failed), len(requests), why),
        )

    def _record(self, request: Request, reply: str | None, reason: str | None, *, last: bool) -> None:
        if reply is None:
            request.reason = f"failed: {reason}"
            return
        request.replies.append(reply)
        try:
            request.result, request.reason, request.finished = PARSERS[self.settings.mode](reply), None, True
        except InvalidReply as error:
            request.reason, request.finished = f"invalid: {error}", last

    def _append(self, request: Request, row_id: str) -> None:
        line = {
            "id": row_id,
            "which": request.which,
            "mode": self.settings.mode,
            "model": request.model,
            "seed": request.seed,
        }
        line |= {"score": request.result, "reason": request.reason, "replies": request.replies, "cut": request.cut}
        line |= {} if request.finished else {"failed": True}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**line, "key": request.key}, ensure_ascii=True) + "\n")


def _read_stored(file: Path) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Finished requests by key, and the keys of failed ones; a line truncated by a killed process is skipped."""
    found, failed = {}, set()
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []:
        try:
            row = json.loads(line)
            if row.get("failed"):
                failed.add(row["key"])
            else:
                found[row["key"]] = row
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found, failed - found.keys()


def _reuse(request: Request, finished: dict[str, dict[str, Any]]) -> bool:
    line = finished.get(request.key)
    if line is None:
        return False
    request.result, request.reason, request.finished = line.get("score"), line.get("reason"), True
    request.replies = line.get("replies") or []
    return True


def open_judge(settings: schema.Judge | schema.NoJudge, file: Path, device: Any = None) -> Judge | None:
    """Create and check the judge of a config; None for ``judge=none``. The arguments are those of ``Judge``.

    Raises:
        UserError: The judge is not reachable, or not allowed.
    """
    if not isinstance(settings, schema.Judge):
        return None
    judge = Judge(settings, file, device)
    judge.backend.check()
    return judge


def add_judgement(
    judge: Judge, predictions: Sequence[Prediction], found: dict[str, Any], settings: Evaluate, *, or_fail: bool
) -> None:
    """Add a judge's scores to an evaluation.

    Args:
        judge: The judge.
        predictions: The predictions to judge; their row scores are set.
        found: The content of ``evaluation.json``; modified in place.
        settings: The ``evaluate`` keys.
        or_fail: Whether a failing judge raises; otherwise it is logged, so that a finished training does not fail.

    Raises:
        UserError: The judge failed and ``or_fail`` is set.
    """
    try:
        judgement = judge.judge(predictions, resamples=settings.resamples, seed=found["seed"])
    except UserError as error:
        if or_fail:
            raise
        log.error("%s; the answers are in predictions.jsonl, judge them later with `evaluate input=`", error)
        found["judge"] = {"error": str(error)}
        return
    found["judge"] = judgement["summary"]
    found["scores"]["judge"] = judgement["score"]
