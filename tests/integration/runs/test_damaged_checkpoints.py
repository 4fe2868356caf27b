"""A checkpoint is resumed only if it is complete: each damage is refused in one line that names it."""

import copy
import dataclasses
import math
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from llmft.runs import checkpoint_check
from llmft.runs.open import open_run
from llmft.training.build import build
from llmft.training.resume_check import expected
from llmft.utils.errors import UserError

# What no resumed step depends on: recorded twice, Lightning's manual optimization, and what is only printed.
UNUSED = (
    ("pytorch-lightning_version",),
    ("Alpaca",),  # the position, which loops holds
    ("loops", "fit_loop", "state_dict"),
    ("loops", "fit_loop", "epoch_loop.automatic_optimization.state_dict"),
    ("loops", "fit_loop", "epoch_loop.manual_optimization.state_dict"),
    ("loops", "fit_loop", "epoch_loop.manual_optimization.optim_step_progress"),
    ("callbacks", "MetricsLog", "row"),
    ("lr_schedulers", 0, "_step_count"),
    ("lr_schedulers", 0, "_is_initial"),
    ("lr_schedulers", 0, "_get_lr_called_within_step"),
)
# Switches that torch fills in, texts, and a best score before the first validation.
FREE = {
    "dropped": (
        *("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"),
        *("val/loss", "val/perplexity"),
    ),
    "a text": ("foreach", "stopping_reason_message"),
    "infinite": ("best_score",),
    "int64": ("best_score",),
}


@pytest.fixture(scope="module")
def good(lora_run):
    """The last checkpoint of a run, and what it must hold."""
    _, cfg = open_run(str(lora_run))
    return torch.load(lora_run / "checkpoints" / "last.ckpt", weights_only=True), expected(build(cfg))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a checkpoint with its keys."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


def damages(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"a text": "x"}
    if isinstance(value, Tensor) and value.is_floating_point():
        found |= {"int64": value.long(), "NaN": value * math.nan, "infinite": value + math.inf}
        if value.ndim:
            found |= {"half": value[: len(value) // 2], "turned": value[None]}
    elif isinstance(value, int) and not isinstance(value, bool):
        found |= {"negative": -2, "a fraction": math.nan}
    elif isinstance(value, float):
        found |= {"NaN": math.nan}
    return found


def every_damage(checkpoint: Any) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Each value dropped, and replaced by what it must not be: the damage, its place, and the damaged copy."""
    for path, value in places(checkpoint):
        if any(path[: len(unused)] == unused for unused in UNUSED):
            continue
        for name, new in {"dropped": None, **damages(value)}.items():
            if path[-1] in FREE.get(name, ()):
                continue
            result = copy.deepcopy(checkpoint)
            inner = result
            for key in path[:-1]:
                inner = inner[key]
            if name == "dropped":
                del inner[path[-1]]
            else:
                inner[path[-1]] = new
            yield name, path, result


def test_every_damage_of_a_checkpoint_is_found_and_named(good):
    checkpoint, wanted = good
    assert not list(checkpoint_check.faults(checkpoint, wanted))
    tried = 0
    for name, path, damaged in every_damage(checkpoint):
        found = next(checkpoint_check.faults(damaged, wanted), None)
        assert found, f"{path}: {name} is accepted"
        assert path[0] in found or path[0] == "epoch", f"{path}: {name} is called: {found}"
        assert "\n" not in found
        tried += 1
    assert tried > 400
    streamed = dataclasses.replace(wanted, batches=None)
    assert [fault.partition(",")[0] for fault in checkpoint_check.faults(checkpoint, streamed)] == ["stream"]


def test_a_changed_byte_and_a_file_that_is_cut_off_are_found(lora_run, tmp_path):
    file = shutil.copy(lora_run / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt")
    assert checkpoint_check.load_last(file)["global_step"] == 4
    content = file.read_bytes()
    middle = content.index(torch.load(file, weights_only=True)["state_dict"].popitem()[1].numpy().tobytes())
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(
        UserError, match=r"last.ckpt: is damaged: \S*/data/\d+ in it is not what was written \(CRC-32\)"
    ):
        checkpoint_check.load_last(file)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"last.ckpt: cannot be used: the file is cut off"):
        checkpoint_check.load_last(file)


def test_a_damaged_checkpoint_is_not_resumed_and_the_best_one_is_the_way_out(lora_run, llmft, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "run")
    last = run / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    del state["optimizer_states"][0]["state"][0]["exp_avg_sq"]
    torch.save(state, last)
    code, _, err = llmft("resume=run", "trainer.max_steps=5")
    assert code == 2
    found = re.search(r"^llmft: .*$", err, re.MULTILINE)
    assert found
    assert "last.ckpt: is damaged: optimizer_states: model.base_model.model.transformer.h.0" in found[0]
    assert "lora_A.default.weight: exp_avg_sq is missing; best.ckpt (step 4) is not: copy it to last.ckpt" in found[0]
    shutil.copy(run / "checkpoints" / "best.ckpt", last)
    state = torch.load(last, weights_only=True)
    state["callbacks"]["Checkpoints"]["best_step"] = 2  # and that one is damaged
    torch.save(state, last)
    next(iter(state["state_dict"].values())).fill_(math.nan)
    torch.save(state, run / "checkpoints" / "best.ckpt")
    code, _, err = llmft("resume=run", "trainer.max_steps=5")
    assert (code, "best.ckpt: is damaged: state_dict: " in err, "holds NaN or infinity" in err) == (2, True, True), err
