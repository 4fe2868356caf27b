"""Schema of ``prove``: the first steps of a training, computed again by a referee; what it cannot compute is refused."""

from pydantic import Field

from llmft.config.schema.peft import AnyPeft, Lora
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section
from llmft.config.schema.trainer import Optim, Scheduler, Trainer
from llmft.config.schema.types import FromZero

# Keys of torch.optim.AdamW that change no number beyond rounding, or that the referee computes too.
KNOWN_TO_ADAMW = {"lr", "weight_decay", "betas", "fused", "foreach", "capturable", "eps"}


class Prove(Section):
    """The referee: an independent loop in plain torch and float64 computes the first optimizer steps again, and compares."""

    steps: FromZero = Field(
        description="How many of the first optimizer steps are computed again and compared; 0 for none."
    )
    keys: bool = Field(
        description="Take these steps once more without each key of the command line, and say what it changes."
    )


@rule("prove.steps", "trainer")
def _one_process(prove: Prove, trainer: Trainer) -> Faults:
    if prove.steps and trainer.devices * trainer.num_nodes > 1:
        yield f"prove.steps={prove.steps}: the referee follows one process; use trainer.devices=1 trainer.strategy=auto"
    if prove.steps and trainer.precision == "16-mixed":
        yield f"prove.steps={prove.steps}: trainer.precision=16-mixed scales its loss and skips steps; use bf16-mixed or 32-true"


@rule("prove.steps", "peft")
def _provable_method(prove: Prove, peft: AnyPeft) -> Faults:
    if not prove.steps:
        return
    prefix = f"prove.steps={prove.steps}"
    if peft.distill_from:
        yield f"{prefix}: the referee has no teacher; leave out peft.distill_from"
    if peft.method == "unfreeze":
        yield f"{prefix}: the referee trains the same parameters in every step; use another peft than unfreeze"
    if isinstance(peft, Lora):
        if peft.quantise:
            yield f"{prefix}: weights in 4 or 8 bits (peft.quantise={peft.quantise}) have no float64 copy; use peft=lora"
        if peft.dropout:
            yield f"{prefix}: dropout is random, and cannot be computed again; set peft.dropout=0"


@rule("prove.steps", "optim", "scheduler")
def _provable_optimizer(prove: Prove, optim: Optim, scheduler: Scheduler) -> Faults:
    if not prove.steps:
        return
    if optim.target != "torch.optim.AdamW":
        yield f"prove.steps={prove.steps}: the referee computes torch.optim.AdamW, not {optim.target}; use optim=adamw"
    elif others := sorted(set(optim.model_extra or {}) - KNOWN_TO_ADAMW):
        yield f"prove.steps={prove.steps}: the referee does not compute optim.{others[0]}; leave it out"
    if not scheduler.target.startswith("llmft.models.schedule."):
        yield (
            f"prove.steps={prove.steps}: the referee does not compute {scheduler.target}; "
            "use scheduler=linear, cosine, constant or plateau"
        )


@rule("prove.keys", "prove.steps", "resume")
def _keys_of_steps(prove: Prove, resume: str | None) -> Faults:
    if prove.keys and prove.steps == 0:
        yield "prove.keys=true: compares the first prove.steps steps, and prove.steps is 0; pass prove.steps=20"
    if prove.keys and resume:
        yield "prove.keys=true: a resumed training does not take its first steps; leave it out"
