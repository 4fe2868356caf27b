"""Export a run to a verified folder (weights, tokenizer, chat template, generation config, card), a zip, or the Hub."""

import gc
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmft.config.schema import ExportConfig, TrainConfig
from llmft.export import checksums, hub, model_card, verify, weights
from llmft.export.zip import pack
from llmft.generation.questions import sample_questions
from llmft.models.backbone.open import TrainedBackbone
from llmft.models.peft import trainable
from llmft.utils import device as devices
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_folder, new_folder

log = logging.getLogger(__name__)


class Exported(NamedTuple):
    """Result of an export.

    Attributes:
        path: Folder or archive; None if it is only on the Hub.
        difference: Largest absolute difference of a logit to the trained model.
        url: URL of the commit on the Hub, if pushed.
    """

    path: Path | None
    difference: float
    url: str | None = None


def export(run: Path, cfg: TrainConfig, to: str | None, settings: ExportConfig) -> Exported:
    """Export a finished run.

    Args:
        run: The run directory.
        cfg: The run's config.
        to: A folder that does not exist yet (with ``zip``: the archive, ``.zip`` is appended if missing).
        settings: ``form`` (``adapter`` or ``merged``), ``shard_size``, ``tolerance``, ``zip``, ``hub`` and ``private``.

    Raises:
        UserError: There is no adapter to export, the target exists, the Hub refuses, or the logits of the exported model
            differ from the trained model's; nothing is kept then.
    """
    if settings.form == "adapter" and not trainable.is_adapter(cfg.peft):
        raise UserError("form=adapter: this run has no adapter (only LoRA runs have one); use form=merged")
    if to is None and settings.hub is None:
        raise UserError("export: pass to=FOLDER, hub=owner/name or both")
    if settings.hub:
        hub.check_access(settings.hub)
    with _target(to, zipped=settings.zip) as (folder, final):
        difference = _write(run, cfg, folder, settings)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors creates files that only their owner can read
        checksums.write(folder)
        if settings.zip and final:
            pack(folder, final)
        url = hub.push(folder, settings.hub, private=settings.private) if settings.hub else None
    return Exported(final, difference, url)


@contextmanager
def _target(to: str | None, *, zipped: bool) -> Iterator[tuple[Path, Path | None]]:
    """Yield the folder to write into, and the final path (None if the export is only pushed to the Hub)."""
    if to is not None and not zipped:
        final = new_folder("to", to)
        with atomic_folder(final, new=True) as folder:
            yield folder, final
        return
    final = None
    if to is not None:
        final = new_folder("to", to.removesuffix(".zip") + ".zip")
        if final.is_dir():
            raise UserError(f"to={to}: {final.name} is a folder")
    # next to the target, on the same disk; in the system's temporary folder if the export is only pushed
    with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent if final else None) as scratch:
        yield Path(scratch), final


def _write(run: Path, cfg: TrainConfig, folder: Path, settings: ExportConfig) -> float:
    source, device = run / "model", devices.default_device()
    backbone = weights.load_full_precision(source, cfg)
    to = folder if settings.form == "merged" else None
    references = _reference_logits(backbone, cfg, device, to, settings.shard_size)
    base = None
    if settings.form == "adapter":
        weights.write_adapter(source, folder, model_card.hub_id(cfg), cfg.model.revision)
        base = backbone.path
    auto_class = backbone.family.auto_class
    difference = verify.largest_difference(folder, base, cfg.model.revision, auto_class, device, references)
    if not difference <= settings.tolerance:  # not `>`: NaN must be refused too
        raise UserError(
            f"export: a logit of the reloaded model differs by {difference:.3g}, more than tolerance="
            f"{settings.tolerance:g}; nothing was kept"
        )
    verified = (
        f"Verified by reloading: over {len(references)} prompts, no logit differs by more than {difference:.2g} from the"
        " trained model's."
    )
    (folder / "README.md").write_text(model_card.run_card(run, cfg, settings.form, verified), encoding="utf-8")
    return difference


def _reference_logits(
    backbone: TrainedBackbone, cfg: TrainConfig, device: Any, to: Path | None, shards: str
) -> list[verify.ReferenceLogits]:
    """Compute the trained model's logits, and write it merged if ``to`` is given; the model is freed afterwards."""
    model = backbone.load().eval().to(device)
    questions = [
        question.with_system(cfg.data.system) for question in sample_questions([q.node() for q in cfg.data.questions])
    ]
    references = verify.reference_logits(model, backbone.codec, [question.context for question in questions])
    if to:
        weights.write_merged(model, backbone.folder, to, shards)
    del model
    gc.collect()
    return references
