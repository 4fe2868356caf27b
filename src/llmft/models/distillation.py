"""Distillation: a smaller model learns from the logits of a larger one of the same vocabulary (Hinton et al. 2015)."""

from typing import Any

import torch
from torch import Tensor

from llmft.config.groups import option_keys
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.schema.model import Model
from llmft.models.backbone.open import Backbone
from llmft.models.forward import Forward
from llmft.models.loss import TokenLoss, divergence_sum, token_count
from llmft.utils.errors import UserError

# A teacher that is not in conf/model is only a path; it does not inherit these keys from the student.
PATH_ONLY = {"gguf_file": None, "sha256": None, "revision": None, "new_tokens": [], "trust_remote_code": False}


class Teacher:
    """A frozen model in eval mode. It is no submodule of the student, so no checkpoint holds it.

    Args:
        forward: The teacher's forward pass.
        weight: Of the divergence in the loss; the labels have the rest.
        temperature: Both models' logits are divided by it.

    Attributes:
        divergence: Running sum of the divergence, before weighting.
    """

    def __init__(self, forward: Forward, weight: float, temperature: float) -> None:
        self.forward, self.weight, self.temperature = forward, weight, temperature
        self.forward.model.requires_grad_(False).eval()
        self.divergence = TokenLoss()

    def mixed(self, nats: Tensor, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The weighted sum of the labels' loss and the divergence from the teacher, summed over tokens, in nats.

        Args:
            nats: The loss of the labels, a sum.
            logits: Of the student, [N, V].
            batch: As both models take it.
        """
        self.forward.model.to(logits.device)
        with torch.no_grad():
            teacher_logits, targets, chosen = self.forward.forward_targets(batch)
        weights = self.forward.weights(batch, chosen)
        divergence = divergence_sum(logits, teacher_logits, self.temperature, weights)
        self.divergence.add(divergence, token_count(targets, weights))
        return (1 - self.weight) * nats + self.weight * divergence


def teacher_of(cfg: TrainConfig, tokenizer: Any) -> Teacher | None:
    """The teacher that ``peft.distill_from`` names, loaded; None if it names none.

    Raises:
        UserError: There is no such model, or its vocabulary differs.
    """
    if not cfg.peft.distill_from:
        return None
    backbone = Backbone(config_of(cfg))
    check_vocabulary(cfg, tokenizer, backbone.tokenizer)
    return Teacher(backbone.family(backbone.load()), cfg.peft.distill_weight, cfg.peft.distill_temperature)


def config_of(cfg: TrainConfig) -> Model:
    """The teacher's model config: the student's, overridden by what conf/model has for the teacher."""
    wanted = str(cfg.peft.distill_from)
    named = (conf_dir() / "model" / f"{wanted}.yaml").is_file() and not wanted.startswith("_")
    own = option_keys("model", wanted) if named else {"name": "teacher", "path": wanted}  # a path is no valid name
    return cfg.model.replaced(
        {**PATH_ONLY, **own, "dropout": None, "gradient_checkpointing": False, "activation_offload": False}
    )


def check_vocabulary(cfg: TrainConfig, tokenizer: Any, teacher_tokenizer: Any) -> None:
    """Refuse a teacher whose token ids differ from the student's.

    Raises:
        UserError: They do.
    """
    student, teacher = tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if student != teacher:
        example = next((token for token in student if teacher.get(token) != student[token]), None)
        shown = (
            f"{example!r} is id {student[example]} in the student, {teacher.get(example)} in the teacher"
            if example
            else "it has more tokens"
        )
        raise UserError(
            f"peft.distill_from={cfg.peft.distill_from}: its vocabulary is not that of {cfg.model.name} ({shown})"
        )
