"""A training's end of the pipe: it takes steps on the parent's orders, and reports their time and memory.

The parent writes one JSON object per line (``{"steps": 4}``, with ``"forget_peak": true`` after the warm-up) and gets one back.
Only the standard library is imported, so that llmft's environment and the peers' run the same code.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Environment variables with the file descriptors of the pipes.
READ, WRITE = "BENCHMARK_READ", "BENCHMARK_WRITE"


class Turns:
    """Blocks the training until its next turn.

    Args:
        synchronize: Waits until the device is idle; the clock stops after it.
        peak: Peak memory in MiB since the last reset; None for this process's resident set.
        forget: Resets that peak.
    """

    def __init__(
        self,
        synchronize: Callable[[], Any] = lambda: None,
        peak: Callable[[], float] | None = None,
        forget: Callable[[], Any] | None = None,
    ) -> None:
        self.orders = os.fdopen(int(os.environ[READ]), encoding="utf-8")
        self.reports = os.fdopen(int(os.environ[WRITE]), "w", encoding="utf-8")
        self.synchronize, self.peak, self.forget = synchronize, peak or resident_peak, forget or forget_resident_peak
        self.left, self.steps = 0, []

    def ready(self, **facts: Any) -> None:
        """Report the facts of this training, and wait."""
        self._report(facts)

    def took(self, step: dict[str, Any]) -> None:
        """Record an optimizer step; after the last of the turn, report and wait.

        Args:
            step: Counts of its batch, and its loss; scalar tensors are read after the clock has stopped.
        """
        self.steps.append(step)
        self.left -= 1
        if self.left > 0:
            return
        self.synchronize()
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        steps = [{k: v if isinstance(v, str | int) else float(v) for k, v in one.items()} for one in self.steps]
        self._report({"wall": wall, "cpu": cpu, "peak": self.peak(), "steps": steps})

    def _report(self, report: dict[str, Any]) -> None:
        self.reports.write(json.dumps(report) + "\n")
        self.reports.flush()
        order = json.loads(self.orders.readline() or '{"steps": 0}')
        if not order["steps"]:
            os._exit(0)  # checkpoints and everything after the steps are not needed
        if order.get("forget_peak"):
            self.forget()
        self.left, self.steps = order["steps"], []
        self.synchronize()
        self.wall, self.cpu = time.perf_counter(), time.process_time()


def resident_peak() -> float:
    """Peak resident set of this process since the last reset, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_resident_peak() -> None:
    """Reset the peak resident set."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def of_cuda(torch: Any) -> Turns:
    """Turns on a GPU, with its synchronization and its memory (what torch has reserved)."""

    def peak() -> float:
        return torch.cuda.max_memory_reserved() / 2**20

    return Turns(torch.cuda.synchronize, peak, torch.cuda.reset_peak_memory_stats)


def contents(batch: dict[str, Any], rows: Any, *, seq2seq: bool) -> dict[str, Any]:
    """Counts of a batch, as scalar tensors.

    Args:
        batch: ``input_ids`` [B, S], ``labels`` [B, S] (causal) or [B, T] (seq2seq), and ``attention_mask`` [B, S]; packed sequences
            have ``position_ids`` that restart (the peers') or ``rows`` and ``label_rows`` (llmft's) instead.
        rows: Number of examples in it.
        seq2seq: Whether labels are a separate sequence.

    Returns:
        ``rows``; ``slots``: elements of the tensors; ``sources`` and ``targets``: tokens without padding;
        ``supervised``; and for attention the sums over examples of source², source x target and target².
    """
    labels, ids = batch["labels"], batch["input_ids"]
    sources = _lengths(batch, "rows", "attention_mask", ids)
    targets = _lengths(batch, "label_rows", None, labels) if seq2seq else sources.new_zeros(sources.shape)
    shifted = labels if seq2seq else labels[:, 1:]
    return {
        "rows": rows,
        "slots": ids.numel() + (labels.numel() if seq2seq else 0),
        "sources": sources.sum(),
        "targets": targets.sum(),
        "supervised": (shifted != -100).sum(),
        "source_source": (sources**2).sum(),
        "source_target": (sources * targets).sum(),
        "target_target": (targets**2).sum(),
    }


def _lengths(batch: dict[str, Any], packed: str, mask: str | None, ids: Any) -> Any:
    """Tokens of each example, in order."""
    if packed in batch:
        lines = batch[packed]
        numbers = lines + (lines.max() + 1) * lines.new_tensor([*range(len(lines))])[:, None]
        return numbers[lines >= 0].unique(return_counts=True)[1]
    if "position_ids" in batch:
        starts = (batch["position_ids"].flatten() == 0).nonzero().flatten()
        return starts.new_tensor([*starts[1:].tolist(), ids.numel()]) - starts
    if mask and mask in batch:
        return batch[mask].sum(-1)
    return (ids != -100).sum(-1)
