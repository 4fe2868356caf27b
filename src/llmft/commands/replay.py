"""``replay``: run the rows again at which a guard halted a training, and look at every module."""

import contextlib
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Column, Table
from rich.text import Text

from llmft.config.validate import check
from llmft.data.tokenization.codec import IGNORED, Codec
from llmft.diagnostics import forward_trace, postmortem
from llmft.diagnostics.show_tokens import label_spans, render_spans
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.distillation import teacher_of
from llmft.models.forward import Forward
from llmft.models.peft import trainable
from llmft.runs.open import open_run
from llmft.utils.console import Console
from llmft.utils.device import autocast_dtype, to_device
from llmft.utils.errors import UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.text import json_line, printable

SHOWN_CHARACTERS = 600  # of a row; format=json has all
WHICH = ((False, True), (True,))  # the whole text, and what of it is trained


def main(cfg: DictConfig) -> None:
    """Load what the run left in ``halt/``, run forward and backward, and print what was found."""
    quiet()
    log_to(None)
    check(cfg)
    if cfg.run is None:
        raise UserError("replay: pass run=RUN, the directory of a run that a guard halted")
    folder, trained = open_run(cfg.run, "halt")
    report, window, weights = postmortem.read(folder / "halt")
    forward, codec = _forward(trained, weights)
    forward.kernels.packing_is_equivalent = bool(report.get("rows_agree"))  # broken weights cannot be compared
    found = _replay(forward, window, report)
    rows = [row for batch in window.batches for row in _rows(forward, batch, codec)]
    if cfg.format == "json":
        for row in rows:
            row.pop("shown")
        Console(soft_wrap=True).file.write(json_line(finite({**found, "rows": rows})) + "\n")
    else:
        _show(report, found, rows, cfg.replay.modules)


def _forward(cfg: DictConfig, weights: dict[str, torch.Tensor]) -> tuple[Forward, Codec]:
    """The run's model with the weights at the halt, where the run was (CPU or GPU)."""
    backbone = Backbone.open(cfg)
    model = backbone.load_adapted()
    trainable.load_weights(model, weights)
    gpu = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    model.to("cuda" if gpu else "cpu")
    return backbone.family(model, Kernels.from_config(cfg), teacher_of(cfg, backbone.tokenizer)), backbone.codec


def _replay(forward: Forward, window: postmortem.StepBatches, report: dict[str, Any]) -> dict[str, Any]:
    """Forward and backward of the window as it was: same dropout, same precision."""
    training = report["during"] != "validation"
    forward.model.train(training)
    kind = autocast_dtype(report["precision"])

    def context() -> Any:
        return torch.autocast(forward.device.type, kind) if kind else contextlib.nullcontext()

    window.batches = [to_device(batch, forward.device) for batch in window.batches]
    states = window.states if training else []
    seen, nats, tokens = forward_trace.rerun(forward, window.batches, states, context=context, backward=training)
    bad = [call for call in seen.seen if call.output.broken]
    large = sorted(seen.seen, key=lambda call: -(call.output.largest or 0.0))
    return {
        "what": report["what"],
        "step": report["step"],
        "loss": nats / max(tokens, 1),
        "loss_at_halt": report["loss"],
        "tokens": tokens,
        "first_bad_module": forward_trace.as_json(seen.first_bad),
        "bad_modules": [forward_trace.as_json(call) for call in _once(bad)],
        "largest_outputs": [forward_trace.as_json(call) for call in _once(large)],
        "bad_gradients": seen.broken_gradients,
        "gradient_norms": _norms(forward, max(tokens, 1)),
    }


def _once(calls: list[forward_trace.ModuleCall]) -> list[forward_trace.ModuleCall]:
    first: dict[str, forward_trace.ModuleCall] = {}
    for call in calls:
        first.setdefault(call.module, call)
    return list(first.values())


def _norms(forward: Forward, tokens: int) -> dict[str, float]:
    """The norm of the gradient of each module's own weights, normalised as the optimizer would see it, largest first."""
    squares: dict[str, float] = {}
    for name, p in forward.model.named_parameters():
        if p.grad is not None:
            owner = name.rpartition(".")[0]
            squares[owner] = squares.get(owner, 0.0) + float(p.grad.double().norm() / tokens) ** 2
    norms = {name: square**0.5 for name, square in squares.items()}
    return dict(sorted(norms.items(), key=lambda item: -item[1] if item[1] == item[1] else float("-inf")))


def _rows(forward: Forward, batch: dict[str, Any], codec: Codec) -> list[dict[str, Any]]:
    """Each row as the model saw it, and its own loss (without dropout); a pack of rows is shown as one."""
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
        text, trained = (
            codec.tokenizer.decode([i for is_, ids in parts if is_ in which for i in ids]) for which in WHICH
        )
        row = {"place": place, "loss": float(nats) / max(int(tokens), 1), "tokens": int(tokens), "text": text}
        found.append(row | {"trained": trained, "shown": render_spans(parts, codec)})
    return found


def _parts(forward: Forward, batch: dict[str, Any], number: int) -> list[tuple[bool, list[int]]]:
    """The ids of one row in runs that are trained or not, without padding."""
    ids, labels, mask = batch["input_ids"][number], batch["labels"][number], batch.get("attention_mask")
    real = mask[number].bool() if mask is not None and mask.ndim == 2 else torch.ones_like(ids, dtype=torch.bool)
    if forward.model.config.is_encoder_decoder:
        return [(False, ids[real].tolist()), (True, labels[labels != IGNORED].tolist())]
    return label_spans(ids[real].tolist(), labels[real].tolist())


def _show(report: dict[str, Any], found: dict[str, Any], rows: list[dict[str, Any]], number: int) -> None:
    console = Console(highlight=False)
    for row in rows:
        console.rule(
            Text(f"{printable(row['place'])}  loss {row['loss']:.4g} over {row['tokens']} tokens"), align="left"
        )
        console.print(_clipped(row["shown"]), soft_wrap=True)
    console.rule()
    bad = found["bad_modules"]
    console.print(
        _calls("modules with a broken output, in the order of the forward pass", bad, number)
        if bad
        else _calls("all outputs are finite; the largest", found["largest_outputs"], number)
    )
    if found["gradient_norms"]:
        table = Table(Column("module", overflow="fold"), title="gradient norms, largest first", title_justify="left")
        table.add_column("norm", justify="right")
        for name, norm in list(found["gradient_norms"].items())[:number]:
            table.add_row(name, f"{norm:.4g}")
        console.print(table)
    at_halt = "not finite" if report["loss"] is None else f"{report['loss']:.6g}"
    facts = {
        "halted": f"step {report['step']}, during {report['during']}: {report['what']}",
        "loss": f"{found['loss']:.6g} now, {at_halt} then ({found['tokens']} tokens)",
        "first bad module": forward_trace.describe_call(forward_trace.from_json(bad[0])) if bad else "none",
        "first bad gradient": f"at the output of {found['bad_gradients'][0]}" if found["bad_gradients"] else "",
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
    left_out = f"\n[... {len(text) - 2 * half:,} characters ...]\n"
    return Text.assemble(text[:half], (left_out, "italic"), text[-half:])
