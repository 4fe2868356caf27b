"""A run -> a verified folder of weights, tokenizer, prompt, settings and card; or an archive of it, or a Hub repository."""

import gc
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from llmft.export import checksums, hub, model_card, verify, weights
from llmft.export.zip import pack
from llmft.generation.questions import sample_questions
from llmft.models.backbone.open import TrainedBackbone
from llmft.models.peft import trainable
from llmft.utils import device as devices
from llmft.utils.errors import UserError
from llmft.utils.folders import new_folder, whole_or_nothing

log = logging.getLogger(__name__)


class Exported(NamedTuple):
    """Where an export is (None: on the Hub alone), the largest difference of a logit, and the URL of its commit on the Hub."""

    path: Path | None
    difference: float
    url: str | None = None


def export(run: Path, cfg: DictConfig, to: str | None, settings: Any) -> Exported:
    """Export a finished run.

    Args:
        run: The run directory.
        cfg: Its config.
        to: A folder that is not there yet (with ``zip``: the archive, ``.zip`` is added where it is not said).
        settings: ``form`` (``adapter`` or ``merged``), ``shard_size``, ``tolerance``, ``zip``, ``hub`` and ``private``.

    Raises:
        UserError: There is no adapter to export, the target is taken, the Hub refuses, or what was written gives other
            logits than the trained model; then it is removed again.
    """
    if settings.form == "adapter" and not trainable.is_adapter(cfg.peft):
        raise UserError("form=adapter: this run trained all weights and has no adapter; use form=merged")
    if to is None and settings.hub is None:
        raise UserError("export: pass to=FOLDER, hub=owner/name or both")
    if settings.hub:
        hub.check(settings.hub)
    with _target(to, zipped=settings.zip) as (folder, final):
        difference = _write(run, cfg, folder, settings)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors makes files for their owner alone
        checksums.write(folder)
        if settings.zip and final:
            pack(folder, final)
        url = hub.push(folder, settings.hub, private=settings.private) if settings.hub else None
    return Exported(final, difference, url)


@contextmanager
def _target(to: str | None, *, zipped: bool) -> Iterator[tuple[Path, Path | None]]:
    """The folder to write into, and what it will be."""
    if to is not None and not zipped:
        final = new_folder("to", to)
        with whole_or_nothing(final) as folder:
            yield folder, final
        return
    final = None
    if to is not None:
        final = new_folder("to", to.removesuffix(".zip") + ".zip")
        if final.is_dir():
            raise UserError(f"to={to}: {final.name} is a folder")
    # beside the target, which has the space; the system's folder for what nobody keeps
    with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent if final else None) as scratch:
        yield Path(scratch), final


def _write(run: Path, cfg: DictConfig, folder: Path, settings: Any) -> float:
    source, device = run / "model", devices.default_device()
    backbone = weights.full_precision(source, cfg)
    asked = _trained(backbone, cfg, device, folder if settings.form == "merged" else None, settings.shard_size)
    base = None
    if settings.form == "adapter":
        weights.write_adapter(source, folder, model_card.hub_id(cfg), cfg.model.revision)
        base = backbone.path
    auto_class = backbone.family.auto_class
    difference = verify.largest_difference(folder, base, cfg.model.revision, auto_class, device, asked)
    if not difference <= settings.tolerance:  # NaN is over it too
        raise UserError(
            f"export: loaded again, a logit differs by {difference:.3g}, more than tolerance={settings.tolerance:g};"
            " nothing was kept"
        )
    told = f"Loaded again, no logit differed by more than {difference:.2g} from the trained model's, over {len(asked)} questions."
    (folder / "README.md").write_text(model_card.of_run(run, cfg, settings.form, told), encoding="utf-8")
    return difference


def _trained(
    backbone: TrainedBackbone, cfg: DictConfig, device: Any, to: Path | None, shards: str
) -> list[verify.ReferenceLogits]:
    """Ask the trained model, and write it merged where that is wanted; it is gone from memory afterwards."""
    model = backbone.load().eval().to(device)
    questions = [question.with_system(cfg.data.system) for question in sample_questions(cfg.data.questions)]
    asked = verify.probes(model, backbone.codec, [question.context for question in questions])
    if to:
        weights.write_merged(model, backbone.folder, to, shards)
    del model
    gc.collect()
    return asked
