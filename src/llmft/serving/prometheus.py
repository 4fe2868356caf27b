"""What the server counts, for Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmft.serving.request_builder import GenerationJob

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server.

    Args:
        max_batch: The largest batch, for the buckets.
    """

    def __init__(self, max_batch: int) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("llmft_requests", "HTTP requests", ["path", "status"], registry=registry)
        self.prompt = Counter("llmft_prompt_tokens", "Tokens of prompts", ["model"], registry=registry)
        self.tokens = Counter("llmft_answer_tokens", "Tokens of answers", ["model"], registry=registry)
        self.answers = Counter("llmft_answers", "Answers, by why they ended", ["model", "reason"], registry=registry)
        self.first = Histogram("llmft_first_token_seconds", "Until the first token", registry=registry, buckets=SECONDS)
        self.whole = Histogram("llmft_answer_seconds", "Until the whole answer", registry=registry, buckets=SECONDS)
        sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < max_batch} | {max_batch})
        self.batch = Histogram("llmft_batch_size", "Answers made at once", registry=registry, buckets=sizes)

    def watch(self, waiting: Callable[[], float], running: Callable[[], float]) -> None:
        """Ask the engine when somebody looks."""
        names = {"llmft_waiting": ("Answers that wait", waiting), "llmft_running": ("Answers being made", running)}
        for name, (words, ask) in names.items():
            Gauge(name, words, registry=self.registry).set_function(ask)

    def answered(self, prepared: GenerationJob, begun: float, *, cancelled: int) -> None:
        """Count a request that has ended, one way or another."""
        model = prepared.model
        self.prompt.labels(model).inc(prepared.prompt_tokens)
        for stream in prepared.streams:
            self.tokens.labels(model).inc(len(stream.ids))
            self.answers.labels(model, stream.reason or "cancelled").inc()
            if stream.started:
                self.first.observe(stream.started - begun)
        if not cancelled:
            self.whole.observe(time.perf_counter() - begun)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
