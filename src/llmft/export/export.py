"""Export a run: every form is written, opened in its runtime, compared with the trained model, and kept if it passes."""

import gc
import shutil
from pathlib import Path

from llmft.config.schema import ExportConfig, TrainConfig
from llmft.export import checksums, hub, model_card, passport, passport_file, record
from llmft.export.forms import adapter, ctranslate2, dtype, gguf, merged, onnx
from llmft.export.forms.source import Source, unquantized
from llmft.export.passport import Judged, Passport
from llmft.export.reference import Reference, collect
from llmft.export.result import Exported, ExportedForm, FailedExportError
from llmft.export.zip import pack
from llmft.models.backbone.open import TrainedBackbone
from llmft.models.peft import trainable
from llmft.report.html import write_or_warn
from llmft.runs.read import read_evaluation
from llmft.runs.record import read_record
from llmft.runtimes.exported import TORCH_FORMS
from llmft.runtimes.open import open_runtime
from llmft.runtimes.runtime import Form, NotInstalledError
from llmft.utils import device as devices
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_folder, new_folder
from llmft.utils.temporary import TemporaryFolder


def export(run: Path, cfg: TrainConfig, to: str | None, settings: ExportConfig) -> Exported:
    """Export a finished run.

    Args:
        run: The run directory.
        cfg: The run's config.
        to: A folder that does not exist yet (with ``zip``: the archive, ``.zip`` is appended if missing). Several forms
            become subfolders of it.
        settings: The keys of ``conf/export.yaml``.

    Raises:
        FailedExportError: A form is not the trained model in its runtime; it is not kept.
        UserError: There is no adapter to export, the target exists, the Hub refuses, or a form cannot be written.
    """
    forms = settings.forms()
    if "adapter" in forms and not trainable.is_adapter(cfg.peft):
        raise UserError("form=adapter: this run has no adapter (only LoRA runs have one); use form=merged")
    if settings.gguf_adapter and not trainable.is_adapter(cfg.peft):
        raise UserError("gguf_adapter=true: this run has no adapter (only LoRA runs have one)")
    if to is None and settings.hub is None:
        raise UserError("export: pass to=FOLDER, hub=owner/name or both")
    if "gguf" in forms:
        gguf.prepare(settings)
    if settings.hub:
        hub.check_access(settings.hub)
    final = _final(to, settings)
    # next to the target, on the same disk; in the system's temporary folder if the export is only pushed
    with TemporaryFolder(".export-", final.parent if final else None) as scratch:
        exporter = _Exporter(run, cfg, settings, Path(scratch))
        done = Exported(tuple(exporter.export(form, final) for form in forms))
    record.add(run, done.forms, to or settings.hub)
    if (run / "report.html").is_file():
        write_or_warn(run, cfg.report)
    _raise_failed(done, settings)
    return done


def _final(to: str | None, settings: ExportConfig) -> Path | None:
    if to is None:
        return None
    if not settings.zip:
        return new_folder("to", to)
    final = new_folder("to", to.removesuffix(".zip") + ".zip")
    if final.is_dir():
        raise UserError(f"to={to}: {final.name} is a folder")
    return final


class _Exporter:
    """Writes, checks and publishes the forms of one run; the trained model is loaded once and freed before.

    Args:
        run: The run directory.
        cfg: Its config.
        settings: The keys of ``conf/export.yaml``.
        scratch: An empty folder on the disk of the target.
    """

    def __init__(self, run: Path, cfg: TrainConfig, settings: ExportConfig, scratch: Path) -> None:
        self.run, self.cfg, self.settings, self.scratch = run, cfg, settings, scratch
        self.backbone = TrainedBackbone(run / "model", unquantized(cfg))
        for form, module in (("ctranslate2", ctranslate2), ("onnx", onnx)):
            if form in settings.forms():
                module.check(self.backbone.config)
        name = dtype.resolved(settings.dtype, self.backbone)
        needs_merged = any(form != "adapter" for form in settings.forms())
        self.source = Source(run / "model", scratch / "weights" if needs_merged else None, name, cfg, settings)
        self.trained, self.rounded = self._references()

    def _references(self) -> tuple[Reference, Reference]:
        """The trained model in float32, and with its merged weights rounded to the export's dtype, computed in float32."""
        model, codec, source = (
            self.backbone.load().eval().to(devices.announced_device()),
            self.backbone.codec,
            self.source,
        )
        trained = rounded = collect(model, codec, self.cfg, held_out=self.settings.quantize is not None)
        if source.merged:
            model = merged.write(model, source.model, source.merged, source.dtype, self.settings.shard_size)
            if source.dtype != "float32":
                rounded = collect(model.float(), codec, self.cfg, held_out=False)
        del model
        gc.collect()
        return trained, rounded

    def export(self, form: Form, final: Path | None) -> ExportedForm:
        """Write, check and publish one form."""
        folder = self.scratch / form
        folder.mkdir()
        _write(form, self.source, folder)
        found = self._checked(form, folder)
        passport_file.write(folder, found, self.cfg, self.run)
        card = model_card.card(
            self.cfg,
            read_record(self.run),
            read_evaluation(self.run),
            form,
            folder=folder,
            checked=passport_file.section(found),
            name=self.settings.name,
            language=self.settings.language,
            hub=self.settings.hub,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors creates files that only their owner can read
        checksums.write(folder)
        return self._published(found, folder, final)

    def _checked(self, form: Form, folder: Path) -> Passport:
        settings, quantize = self.settings, self.settings.quantization_of(form)
        # PyTorch computes in float32 here, so that what was written is compared, without the noise of 16 bits
        dtype = "float32" if form in TORCH_FORMS else self.source.dtype
        reference = self.trained if form == "adapter" or quantize else self.rounded
        limit = settings.tolerance
        if limit is None:
            limit = passport.tolerance_of(form, dtype, reference)
        how = Judged(form, self.source.dtype, quantize, limit, settings.max_loss_increase)
        try:
            runtime = open_runtime(
                folder, dtype=dtype, base=self.backbone.path if form == "adapter" else None,
                revision=self.cfg.model.revision,
            )  # fmt: skip
        except NotInstalledError as error:
            return passport.not_checked(how, str(error))
        except UserError as error:
            return passport.unusable(how, str(error).replace(str(folder), form))
        checks = _own_checks(form, folder)
        if reference is not self.trained:
            checks.append(passport.rounding(self.trained, reference, self.source.dtype))
        return passport.compare(runtime, reference, how, checks)

    def _published(self, found: Passport, folder: Path, final: Path | None) -> ExportedForm:
        settings = self.settings
        passed = is_kept(found, settings)
        if not passed and not (settings.keep and final):
            return ExportedForm(found, None)
        target = final if not final or len(settings.forms()) == 1 else final / found.form
        if target and not passed:
            target = target.with_name(f"{target.name.removesuffix('.zip')}.failed{'.zip' if settings.zip else ''}")
        if target and settings.zip:
            pack(folder, target)
        url = hub.push(folder, settings.hub, private=settings.private) if settings.hub and passed else None
        if target and not settings.zip:
            with atomic_folder(target, new=True) as unfinished:
                for file in folder.iterdir():
                    file.rename(unfinished / file.name)
        return ExportedForm(found, target, url)


def is_kept(found: Passport, settings: ExportConfig) -> bool:
    """Whether an export is kept under its name."""
    return found.status == "passed" or (found.status == "not checked" and not settings.require_check)


def _write(form: Form, source: Source, folder: Path) -> None:
    match form:
        case "merged":
            assert source.merged
            shutil.copytree(source.merged, folder, copy_function=_link, dirs_exist_ok=True)
        case "adapter":
            adapter.write(source, folder)
        case "ctranslate2":
            ctranslate2.write(source, folder)
        case "gguf":
            gguf.write(source, folder)
        case "onnx":
            onnx.write(source, folder)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)  # in the same scratch folder


def _own_checks(form: Form, folder: Path) -> list[passport.Check]:
    """Checks of a form's own files, which its runtime would not notice."""
    if form != "merged":
        return []
    fault = merged.tie_fault(folder)
    return [passport.Check("tied head", fault is None, fault or "as in config.json", "as in config.json")]


def _raise_failed(done: Exported, settings: ExportConfig) -> None:
    failed = [one for one in done.forms if not is_kept(one.passport, settings)]
    if not failed:
        return
    told = "; ".join(f"form={one.passport.form}: {passport_file.fault(one.passport)}" for one in failed)
    kept = [str(one.path) for one in done.forms if one.path]
    said = f"kept: {', '.join(kept)}" if kept else "nothing was kept"
    raise FailedExportError(f"export: {told}; {said}", done)
