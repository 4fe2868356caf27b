"""``prove.steps``: the referee of a training, made from its config, and what becomes of its result."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from llmft.callbacks.step_recorder import StepRecorder
from llmft.config.groups import prompt_config
from llmft.config.schema import TrainConfig
from llmft.config.schema import callbacks as schema
from llmft.config.schema.data import MixData
from llmft.config.schema.peft import Lora
from llmft.data.datamodule import InstructionDataModule
from llmft.models.backbone.open import Backbone
from llmft.models.backbone.vocabulary import ending_ids
from llmft.referee.files import forget_rows
from llmft.referee.float64 import lora_scale, needed_bytes
from llmft.referee.loop import Settings
from llmft.referee.optimizer import Schedule, total_steps
from llmft.referee.referee import Referee
from llmft.referee.render import Renderer
from llmft.runs.directory import RunDirectory
from llmft.utils.errors import UserError
from llmft.utils.memory import free_bytes
from llmft.utils.modules import dropouts
from llmft.utils.oom import is_out_of_memory
from llmft.utils.text import first_line

log = logging.getLogger(__name__)
GIB = 2**30


def recorder(
    cfg: TrainConfig,
    backbone: Backbone,
    data: InstructionDataModule,
    finish: Callable[[Referee], None],
    *,
    stop: bool = False,
) -> StepRecorder:
    """The callback that lets a referee follow the first ``prove.steps`` steps.

    Args:
        cfg: The training's, its ``auto`` values resolved.
        backbone: Of the training.
        data: Read and encoded.
        finish: Takes the referee after the last of these steps.
        stop: Whether the training ends there.
    """
    return StepRecorder(cfg.prove.steps, partial(_referee, cfg, backbone, data), finish, stop=stop)


def _referee(cfg: TrainConfig, backbone: Backbone, data: InstructionDataModule, module: Any) -> Referee:
    if module.model.device.type == "mps":
        raise UserError(
            f"prove.steps={cfg.prove.steps}: computes in float64, which MPS lacks; use trainer=cpu, or set it to 0"
        )
    _check_memory(module.model)
    log.info("prove: a float64 copy of the model computes the first %d steps again", cfg.prove.steps)
    renderer = renderer_of(cfg, backbone, data)
    referee = Referee(module.model, settings_of(cfg, data), schedule_of(cfg, data), renderer, precision_of(cfg))
    try:
        referee.loop.probe()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"prove.steps={cfg.prove.steps}: this model cannot run in float64 ({first_line(error)}); set prove.steps=0"
        ) from error
    return referee


def check_model(cfg: TrainConfig, model: Any) -> None:
    """Refuse a model that the referee cannot follow.

    Raises:
        UserError: It has dropout.
    """
    if found := dropouts(model):
        name, rate = next(iter(found.items()))
        raise UserError(
            f"prove.steps={cfg.prove.steps}: dropout is random, and cannot be computed again, and {name} is {rate:g}; set "
            "model.dropout=0" + (" peft.dropout=0" if isinstance(cfg.peft, Lora) else "")
        )


def _check_memory(model: Any) -> None:
    needed, free = needed_bytes(model), free_bytes(model.device)
    if free is not None and needed > free:
        raise UserError(
            f"prove.steps: a float64 copy of this model with its optimizer takes {needed / GIB:.3g} GiB, and "
            f"{free / GIB:.3g} GiB are free; prove a smaller model of the same architecture, or set prove.steps=0"
        )


def precision_of(cfg: TrainConfig) -> str:
    """The precision of most matrix products of a training."""
    return "bfloat16" if cfg.trainer.precision == "bf16-mixed" or cfg.model.dtype == "bfloat16" else "float32"


def settings_of(cfg: TrainConfig, data: InstructionDataModule) -> Settings:
    """What the config says about the arithmetic."""
    optim, clipping, peft = cfg.optim.node(), cfg.callback(schema.GradientClipping), cfg.peft
    beta1, beta2 = optim.get("betas", (0.9, 0.999))
    once = not data.streaming and not isinstance(data.config, MixData)
    return Settings(
        causal=cfg.model.family == "causal",
        accumulate=cfg.trainer.accumulate_grad_batches,
        max_norm=clipping.max_norm if clipping else None,
        betas=(beta1, beta2),
        eps=optim.get("eps", 1e-8),
        weight_decay=optim.get("weight_decay", 1e-2),
        lora_scale=lora_scale(peft.alpha, peft.r, rslora=peft.rslora) if isinstance(peft, Lora) else None,
        train_rows=len(data.indices["train"]) if once else None,
    )


def schedule_of(cfg: TrainConfig, data: InstructionDataModule) -> Schedule:
    """The learning rates of the config."""
    scheduler, trainer = cfg.scheduler, cfg.trainer
    total = total_steps(data.epoch_batches(), trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)
    given = scheduler.warmup_steps or 0
    warmup = round(given * total) if given < 1 else int(given)
    return Schedule(str(scheduler.name), cfg.optim.lr, warmup, total, scheduler.factor or 1.0, scheduler.patience or 0)


def renderer_of(cfg: TrainConfig, backbone: Backbone, data: InstructionDataModule) -> Renderer:
    """Renders the rows of the training's files with its prompt template."""
    name = backbone.prompt_name
    template = None
    if name != "chat":
        template = cfg.prompt.template if cfg.prompt.name == name else prompt_config(name).template
    columns = getattr(cfg.data, "columns", None)
    kind = cfg.data.target.rpartition(".")[2] if cfg.data.target.startswith("llmft.data.") else cfg.data.target
    return Renderer(
        causal=cfg.model.family == "causal",
        tokenizer=backbone.tokenizer,
        template=template,
        files={part.given: part.file for part in data.source.parts},
        kind=kind,
        columns={role: field for role, field in columns.node().items() if field} if columns else {},
        system=cfg.data.system,
        stop_ids=ending_ids(backbone.path, cfg.model.revision),
        train_on=cfg.data.train_on,
        every_turn=cfg.data.train_on_turns == "all",
        budgets=(cfg.data.max_prompt_tokens, cfg.data.max_answer_tokens),
        variables=cfg.prompt.template_kwargs,
        refused="prompt.date or prompt.template_name is set" if cfg.prompt.date or cfg.prompt.template_name else "",
    )


def record(run: RunDirectory, referee: Referee) -> None:
    """Write the result to ``run.json`` and the log; the training that goes on does not need the rows in memory."""
    forget_rows()
    proof = referee.proof
    run.update(prove=proof.as_dict())
    for what, number in proof.not_checked.items():
        log.info("prove: not checked: %s (%d)", what, number)
    log.log(logging.INFO if proof.agrees else logging.WARNING, "prove: %s", proof.sentence)
