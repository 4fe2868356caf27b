"""``replay``: rerun the step at which a guard halted a training, and inspect the output of every module."""

import contextlib
import logging
from functools import cache
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Column, Table
from rich.text import Text

from llmft.config.schema import ReplayConfig, TrainConfig
from llmft.config.validate import check
from llmft.data.batching.collate import without_layout
from llmft.data.tokenization.codec import IGNORED, Codec
from llmft.diagnostics import forward_trace, postmortem
from llmft.diagnostics.show_tokens import label_spans, render_spans
from llmft.models.attention.flat import LENGTHS
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.distillation import teacher_of
from llmft.models.forward import Forward
from llmft.models.peft import trainable
from llmft.runs.open import open_run
from llmft.utils import flash, flex
from llmft.utils.console import Console
from llmft.utils.device import autocast_dtype, float64, tf32, to_device
from llmft.utils.errors import UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.text import json_line, printable

log = logging.getLogger(__name__)

SHOWN_CHARACTERS = 600  # of an example; format=json prints all
PARTS = ((False, True), (True,))  # all tokens; the supervised tokens


def main(cfg: DictConfig) -> None:
    """Load the batches and weights in ``halt/``, run forward and backward, and print the diagnosis."""
    quiet()
    log_to(None)
    config = check(cfg, ReplayConfig)
    if config.run is None:
        raise UserError("replay: pass run=RUN, the directory of a run that a guard halted")
    folder, trained = open_run(config.run, "halt")
    report, window, weights = postmortem.read(folder / "halt")
    forward, codec = _forward(trained, weights)
    # neither can be checked with broken weights
    forward.kernels.packing_is_equivalent = bool(report.get("rows_agree"))
    forward.kernels.sharing_is_equivalent = bool(report.get("prefixes_agree"))
    result = _replay(forward, window, report)
    rows = [row for batch in window.batches for row in _rows(forward, without_layout(batch), codec)]
    if config.format == "json":
        for row in rows:
            row.pop("shown")
        Console(soft_wrap=True).file.write(json_line(finite({**result, "rows": rows})) + "\n")
    else:
        _show(report, result, rows, config.replay.modules)


def _forward(config: TrainConfig, weights: dict[str, torch.Tensor]) -> tuple[Forward, Codec]:
    """The run's model with the weights at the halt, on the run's device type (CPU or GPU)."""
    backbone = Backbone.open(config)
    model = backbone.load_adapted()
    trainable.load_weights(model, weights)
    gpu = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
    model.to("cuda" if gpu else "cpu")
    return backbone.family(model, Kernels.from_config(config), teacher_of(config, backbone.tokenizer)), backbone.codec


def _replay(forward: Forward, window: postmortem.StepBatches, report: dict[str, Any]) -> dict[str, Any]:
    """Rerun forward and backward of the accumulation window with the same dropout masks and precision."""
    training = report["during"] != "validation"
    forward.model.train(training)
    kind = autocast_dtype(report["precision"])

    def context() -> Any:
        return torch.autocast(forward.device.type, kind) if kind else contextlib.nullcontext()

    window.batches = [to_device(batch, forward.device) for batch in window.batches]
    states = window.states if training else []
    with context():
        batches = [by_lengths(forward, batch) for batch in window.batches]
    with tf32(report["precision"]):
        seen, nats, tokens = forward_trace.rerun(forward, batches, states, context=context, backward=training)
    bad = [call for call in seen.seen if call.output.broken]
    large = sorted(seen.seen, key=lambda call: -(call.output.largest or 0.0))
    return {
        "what": report["what"],
        "step": report["step"],
        "loss": nats / (tokens or 1),
        "loss_at_halt": report["loss"],
        "tokens": tokens,
        "first_bad_module": forward_trace.as_json(seen.first_bad),
        "bad_modules": [forward_trace.as_json(call) for call in _first_calls(bad)],
        "largest_outputs": [forward_trace.as_json(call) for call in _first_calls(large)],
        "bad_gradients": seen.broken_gradients,
        "gradient_norms": _norms(forward, tokens or 1),
    }


def by_lengths(forward: Forward, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with the lengths of its examples if they attend by them (flash or flex), as in the training; else without.

    Where a training had one of them and this machine has not, a warning says so.

    Args:
        forward: The model, in the precision of the training.
        batch: On its device.
    """
    kernels, plain = forward.kernels, without_layout(batch)
    if not (kernels.flash or kernels.flex) or not kernels.packing_is_equivalent:
        return plain
    if kernels.attends_by_lengths(forward.model, batch):
        return {**plain, "layout": {name: batch["layout"][name] for name in LENGTHS}}  # labels may have been changed
    name, why = ("flash", flash.unavailable()) if kernels.flash else ("flex", flex.unavailable())
    _warn_of_sdpa(name, why or "no lengths of its examples were stored")
    return plain


@cache
def _warn_of_sdpa(name: str, why: str) -> None:
    """Once, not for each batch."""
    log.warning("replay: the training had model.attention=%s, and the replay has sdpa (%s); digits differ", name, why)


def _first_calls(calls: list[forward_trace.ModuleCall]) -> list[forward_trace.ModuleCall]:
    first: dict[str, forward_trace.ModuleCall] = {}
    for call in calls:
        first.setdefault(call.module, call)
    return list(first.values())


def _norms(forward: Forward, tokens: float) -> dict[str, float]:
    """Gradient norms of each module's own parameters, per supervised token as in the optimizer step, largest first."""
    squares: dict[str, float] = {}
    for name, p in forward.model.named_parameters():
        if p.grad is not None:
            owner = name.rpartition(".")[0]
            squares[owner] = squares.get(owner, 0.0) + float(float64(p.grad).norm() / tokens) ** 2
    norms = {name: square**0.5 for name, square in squares.items()}
    return dict(sorted(norms.items(), key=lambda item: -item[1] if item[1] == item[1] else float("-inf")))


def _rows(forward: Forward, batch: dict[str, Any], codec: Codec) -> list[dict[str, Any]]:
    """Each example as the model saw it, with its loss (without dropout); a packed sequence counts as one."""
    places = [place if isinstance(place, str) else ", ".join(place) for place in batch["places"]]
    size = len(batch["input_ids"])
    if len(places) != size:
        places = [", ".join(places)] * size
    found = []
    forward.model.eval()
    for number, place in enumerate(places):
        one = {
            k: v[number : number + 1] if isinstance(v, torch.Tensor) and len(v) == size else v for k, v in batch.items()
        }
        with torch.no_grad():
            nats, tokens = forward.loss_sum(one)
        parts = _parts(forward, batch, number)
        text, supervised = (
            codec.tokenizer.decode([i for trained, ids in parts if trained in kinds for i in ids]) for kinds in PARTS
        )
        row = {"place": place, "loss": float(nats) / (float(tokens) or 1), "tokens": tokens.item(), "text": text}
        found.append(row | {"trained": supervised, "shown": render_spans(parts, codec)})
    return found


def _parts(forward: Forward, batch: dict[str, Any], number: int) -> list[tuple[bool, list[int]]]:
    """Split the ids of one example into supervised and other spans, without padding."""
    ids, labels, mask = batch["input_ids"][number], batch["labels"][number], batch.get("attention_mask")
    real = mask[number].bool() if mask is not None and mask.ndim == 2 else torch.ones_like(ids, dtype=torch.bool)
    if forward.model.config.is_encoder_decoder:
        return [(False, ids[real].tolist()), (True, labels[labels != IGNORED].tolist())]
    return label_spans(ids[real].tolist(), labels[real].tolist())


def _show(report: dict[str, Any], result: dict[str, Any], rows: list[dict[str, Any]], number: int) -> None:
    console = Console(highlight=False)
    for row in rows:
        console.rule(
            Text(f"{printable(row['place'])}  loss {row['loss']:.4g} over {row['tokens']} tokens"), align="left"
        )
        console.print(_clipped(row["shown"]), soft_wrap=True)
    console.rule()
    bad = result["bad_modules"]
    console.print(
        _calls("modules with a non-finite output, in the order of the forward pass", bad, number)
        if bad
        else _calls("all outputs are finite; the largest", result["largest_outputs"], number)
    )
    if result["gradient_norms"]:
        table = Table(Column("module", overflow="fold"), title="gradient norms, largest first", title_justify="left")
        table.add_column("norm", justify="right")
        for name, norm in list(result["gradient_norms"].items())[:number]:
            table.add_row(name, f"{norm:.4g}")
        console.print(table)
    at_halt = "not finite" if report["loss"] is None else f"{report['loss']:.6g}"
    facts = {
        "halted": f"step {report['step']}, during {report['during']}: {report['what']}",
        "loss": f"{result['loss']:.6g} in the replay, {at_halt} at the halt ({result['tokens']} tokens)",
        "first bad module": forward_trace.describe_call(forward_trace.from_json(bad[0])) if bad else "none",
        "first bad gradient": f"at the output of {result['bad_gradients'][0]}" if result["bad_gradients"] else "",
        "way out": report["way_out"],
    }
    for name, text in facts.items():
        if text:
            console.print(Text.assemble((f"{name + ':':<20}", "bold"), printable(text)), soft_wrap=True)


def _calls(title: str, calls: list[dict[str, Any]], number: int) -> Table:
    columns = [Column(name, overflow="fold") for name in ("module", "kind", "input", "output")]
    table = Table(*columns, title=title, title_justify="left")
    for call in map(forward_trace.from_json, calls[:number]):
        table.add_row(call.module, call.kind, str(call.input), str(call.output))
    if len(calls) > number:
        table.caption = f"and {len(calls) - number} more"
    return table


def _clipped(text: Text) -> Text:
    if len(text) <= SHOWN_CHARACTERS + 100:
        return text
    half = SHOWN_CHARACTERS // 2
    omitted = f"\n[... {len(text) - 2 * half:,} characters ...]\n"
    return Text.assemble(text[:half], (omitted, "italic"), text[-half:])
