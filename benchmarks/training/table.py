"""Markdown table of a case, with what was compared and on which machine."""

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from training.cases import Case
from training.flops import KINDS, PAIRS, flops
from training.peaks import peak_of
from training.runner import Runner

TOLERANCE = 1e-3  # difference of a step's loss between sides that see the same batches
HEAD = "| | examples/s | supervised tokens/s | CPU-seconds per example | padding | peak MiB | useful GFLOP/s | of the ceiling | loss |"
RULE = "|---|---:|---:|---:|---:|---:|---:|---:|---:|"


class Measured:
    """Sums over the turns of a side.

    Args:
        runner: The side after its turns.
        counts: Useful operations per token, counted by llmft's side; the same for all sides.
    """

    def __init__(self, runner: Runner, counts: dict[str, float]) -> None:
        self.name, self.turns = runner.name, runner.turns
        self.steps = [step for turn in runner.turns for step in turn["steps"]]
        self.rows, self.slots = self.total("rows"), self.total("slots")
        self.tokens, self.supervised = self.total("sources") + self.total("targets"), self.total("supervised")
        self.wall, self.cpu = (sum(turn[clock] for turn in runner.turns) for clock in ("wall", "cpu"))
        self.peak = max(turn["peak"] for turn in runner.turns)
        self.work = [sum(flops(step | counts) for step in turn["steps"]) for turn in runner.turns]
        self.flops = sum(self.work)
        self.loss = sum(step["loss"] * step["supervised"] for step in self.steps) / self.supervised

    def total(self, name: str) -> float:
        return sum(step[name] for step in self.steps)

    def rates(self, clock: str) -> list[float]:
        """Useful operations per second of each turn."""
        return [work / turn[clock] for work, turn in zip(self.work, self.turns, strict=True)]

    def line(self, ceiling: float) -> str:
        rate = self.flops / self.wall
        return (
            f"| {self.name} | {self.rows / self.wall:.2f} | {self.supervised / self.wall:,.0f} | {self.cpu / self.rows:.3f} "
            f"| {1 - self.tokens / self.slots:.2f} | {self.peak:,.0f} | {rate / 1e9:,.1f} | {rate / ceiling:.0%} | {self.loss:.4f} |"
        )


def markdown(case: Case, runners: Sequence[Runner], model: str, path: str) -> tuple[str, list[str]]:
    """The table of a case.

    Returns:
        The table, and its faults: batches or losses that should be the same and differ.
    """
    *sides, ceiling = runners
    last = next(turn["steps"][-1] for runner in sides for turn in runner.turns if "per_sources" in turn["steps"][-1])
    counts = {f"per_{name}": last[f"per_{name}"] for name in (*KINDS, *PAIRS)}
    measured = [Measured(runner, counts) for runner in sides]
    products = [step for turn in ceiling.turns for step in turn["steps"]]
    dtypes = sorted({product["dtype"] for product in products}, reverse=True)
    rates = {
        (dtype, clock): statistics.median(product[clock] for product in products if product["dtype"] == dtype)
        for dtype in dtypes
        for clock in ("wall", "cpu")
    }  # fmt: skip
    lines = [f"**{case.title}**: `{model}`, `{Path(path).name}`, {len(measured[0].steps)} steps of llmft\n", HEAD, RULE]
    lines += [m.line(rates[side.ceiling, "wall"]) for m, side in zip(measured, case.sides, strict=True)]
    lines += ["", *(ratios(measured[0], other) for other in measured[1:])]
    faults = [fault for other in measured[1:] for fault in differences(measured[0], other)] if case.same else []
    if case.same:
        largest = max(largest_difference(measured[0], other) for other in measured[1:])
        lines.append(f"The same batches: the losses of {len(measured[0].steps)} steps differ by at most {largest:.1g}.")
    shares = [
        f"{m.name} {m.flops / m.cpu / rates[s.ceiling, 'cpu']:.0%}" for m, s in zip(measured, case.sides, strict=True)
    ]
    walls = [f"{rates[dtype, 'wall'] / 1e9:,.0f} GFLOP/s in {dtype}" for dtype in dtypes]
    lines.append(f"Ceiling: {', '.join(walls)}. Share of it by CPU time: {', '.join(shares)}.")
    if device := sides[0].facts.get("device"):
        lines.append(utilization(device, measured))
    weights = {r.name: r.facts["weights_mib"] for r in sides if "weights_mib" in r.facts}
    lines.append("Weights: " + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in weights.items()) + ".")
    lines.append(machine(sides))
    return "\n".join(lines), faults


def ratios(ours: Measured, other: Measured) -> str:
    """Useful operations per second of llmft against another side, with the range over the turns; for the same examples that equals examples per second.

    Where each side makes its own batches, the few that were measured differ a little in length; counting operations corrects for that.
    """
    turns, cpu = ([a / b for a, b in zip(ours.rates(c), other.rates(c), strict=True)] for c in ("wall", "cpu"))
    return (
        f"{ours.name} against {other.name}: **{(ours.flops / ours.wall) / (other.flops / other.wall):.2f}** times the examples per second "
        f"(rounds {min(turns):.2f} to {max(turns):.2f}), {(ours.flops / ours.cpu) / (other.flops / other.cpu):.2f} times by CPU time "
        f"({min(cpu):.2f} to {max(cpu):.2f}), **{ours.peak / other.peak:.2f}** of the peak memory."
    )


def utilization(device: str, measured: Sequence[Measured]) -> str:
    """Share of the card's published peak that the useful operations are (MFU), and operations per token."""
    peak, ours = peak_of(device), measured[0]
    each = f"{ours.flops / ours.tokens / 1e9:,.2f} GFLOP per token of {ours.name}'s examples"
    rates = [f"{m.name} {m.tokens / m.wall:,.0f} tokens/s" for m in measured]
    if peak is None:
        return f"{'; '.join(rates)}; {each}. The published peak of {device} is not known here, so no MFU."
    shares = [f"{m.name} {m.flops / m.wall / peak:.1%}" for m in measured]
    return f"MFU: {', '.join(shares)} of {peak / 1e12:,.0f} TFLOP/s, the published dense bfloat16 peak of {device}; {'; '.join(rates)}; {each}."


def largest_difference(ours: Measured, other: Measured) -> float:
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(ours.steps, other.steps, strict=True))


def differences(ours: Measured, other: Measured) -> list[str]:
    """What should be the same and differs."""
    found = []
    for name in ("rows", "slots", "sources", "targets", "supervised"):
        if [step[name] for step in ours.steps] != [step[name] for step in other.steps]:
            found.append(f"{ours.name} and {other.name} did not see the same batches: their {name} differ")
    if (difference := largest_difference(ours, other)) > TOLERANCE:
        found.append(f"{ours.name} and {other.name}: a loss differs by {difference:.2g}")
    return found


def machine(sides: Sequence[Runner]) -> str:
    """Date, machine and versions."""
    names = [
        x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")
    ]
    flags = next(x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")).split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    versions = {k: v for side in sides for k, v in side.facts.items() if k in ("torch", "transformers", "trl")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = {side.facts["threads"] for side in sides}
    kernels = [f"{side.name} runs {side.facts['kernels']}" for side in sides if "kernels" in side.facts]
    shown = ", ".join([shown, *kernels])
    device = f"{sides[0].facts['device']}, " if sides[0].facts.get("device") else ""
    return (
        f"{datetime.date.today()}, {device}{names[0]} ({', '.join(wide)}), {len(names)} cores, {'/'.join(map(str, threads))} threads, "
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {shown}."
    )


def publish(page: Path, name: str, table: str) -> None:
    """Replace the table between its markers on a page; the rest of the page stays."""
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"{page}: has no {start.strip()} and {end}")
    before, rest = text.split(start)
    page.write_text(f"{before}{start}{table}\n{end}{rest.split(end)[1]}", encoding="utf-8")
