"""Metrics of the server in Prometheus' format."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmft.generation.prefix_cache import PrefixCache
from llmft.serving.request_builder import GenerationJob

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Metrics of one server.

    Args:
        max_batch: Largest batch size, for the histogram's buckets.
    """

    def __init__(self, max_batch: int) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("llmft_requests", "HTTP requests", ["path", "status"], registry=registry)
        self.prompt = Counter("llmft_prompt_tokens", "Prompt tokens", ["model"], registry=registry)
        self.tokens = Counter("llmft_answer_tokens", "Answer tokens", ["model"], registry=registry)
        self.answers = Counter("llmft_answers", "Answers by finish reason", ["model", "reason"], registry=registry)
        self.first = Histogram(
            "llmft_first_token_seconds", "Time to the first token", registry=registry, buckets=SECONDS
        )
        self.full = Histogram("llmft_answer_seconds", "Time to the full answer", registry=registry, buckets=SECONDS)
        sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < max_batch} | {max_batch})
        self.batch = Histogram("llmft_batch_size", "Answers decoded at once", registry=registry, buckets=sizes)

    def watch(self, waiting: Callable[[], float], running: Callable[[], float]) -> None:
        """Add gauges that read the queue and the running batch at each scrape."""
        gauges = {"llmft_waiting": ("Queued answers", waiting), "llmft_running": ("Running answers", running)}
        for name, (description, read) in gauges.items():
            Gauge(name, description, registry=self.registry).set_function(read)

    def watch_prefixes(self, prefixes: PrefixCache) -> None:
        """Add the numbers of the prefix cache, as they are at each scrape."""
        self.registry.register(_Prefixes(prefixes))

    def record(self, job: GenerationJob, start: float, *, cancelled: int) -> None:
        """Record a request that has ended.

        Args:
            job: The request.
            start: Time of its arrival, by ``time.perf_counter``.
            cancelled: How many of its answers were cancelled.
        """
        model = job.model
        self.prompt.labels(model).inc(job.prompt_tokens)
        for stream in job.streams:
            self.tokens.labels(model).inc(len(stream.ids))
            self.answers.labels(model, stream.reason or "cancelled").inc()
            if stream.started:
                self.first.observe(stream.started - start)
        if not cancelled:
            self.full.observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self.registry)


class _Prefixes(Collector):
    def __init__(self, prefixes: PrefixCache) -> None:
        self.prefixes = prefixes

    def collect(self) -> Iterator[Metric]:
        name, cache = "llmft_prefix_cache", self.prefixes
        yield CounterMetricFamily(f"{name}_hits", "Prompts that began with stored tokens", value=cache.hits)
        yield CounterMetricFamily(f"{name}_tokens", "Prompt tokens that were not computed again", value=cache.tokens)
        yield GaugeMetricFamily(f"{name}_bytes", "Size of the stored keys and values", value=cache.bytes)
