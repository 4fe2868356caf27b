"""A larger model of the same vocabulary -> what a smaller one learns from besides the labels (Hinton et al. 2015)."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from llmft.config.paths import conf_dir
from llmft.models.backbone import load
from llmft.models.loss import divergence_sum
from llmft.utils.errors import UserError

# What a teacher has of its own, if it is no name of conf/model: nothing but its path.
ALONE = {"gguf_file": None, "sha256": None, "revision": None, "new_tokens": [], "trust_remote_code": False}


class Teacher:
    """A frozen model in eval mode beside the one that is trained; no part of it, so no checkpoint holds it.

    Args:
        module: Under its family's ``predict``.
        weight: Of the divergence in the loss; the labels have the rest.
        temperature: Both models' logits are divided by it.
    """

    def __init__(self, module: Any, weight: float, temperature: float) -> None:
        self.module, self.weight, self.temperature = module.requires_grad_(False).eval(), weight, temperature

    def mixed(self, nats: Tensor, logits: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss with the teacher's part in it, and that part alone (before weighting), both sums over tokens in nats.

        Args:
            nats: The loss of the labels, a sum.
            logits: Of the model that is trained, [N, V].
            batch: As both models take it.
        """
        self.module.to(logits.device)
        with torch.no_grad():
            told, _, _ = self.module.predict(batch)
        divergence = divergence_sum(logits, told, self.temperature)
        return (1 - self.weight) * nats + self.weight * divergence, divergence.detach()


def teacher_of(cfg: DictConfig, tokenizer: Any, family: Any) -> Teacher | None:
    """The teacher that a config asks for (``peft.distill_from``); None where it asks for none.

    Raises:
        UserError: There is no such model, or its vocabulary is another.
    """
    if not cfg.peft.get("distill_from"):
        return None
    own = config_of(cfg)
    place = load.locate(own, family.auto_class)
    check_vocabulary(cfg, tokenizer, load.load_tokenizer(place, own))
    model = load.load_model(place, own, family.auto_class)
    return Teacher(family(model, None, None), cfg.peft.distill_weight, cfg.peft.distill_temperature)


def config_of(cfg: DictConfig) -> Any:
    """The teacher's model config: the pupil's, with what is the teacher's own."""
    wanted = cfg.peft.distill_from
    file = conf_dir() / "model" / f"{wanted}.yaml"
    named = file.is_file() and not wanted.startswith("_")
    own = OmegaConf.load(file) if named else OmegaConf.create({"name": wanted, "path": wanted})
    base = OmegaConf.merge(OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True)), ALONE)
    kept = {key: value for key, value in own.items() if key != "defaults"}
    return OmegaConf.merge(base, kept, {"dropout": None, "gradient_checkpointing": False})


def check_vocabulary(cfg: DictConfig, tokenizer: Any, teachers: Any) -> None:
    """Refuse a teacher whose ids mean something else.

    Raises:
        UserError: They do.
    """
    ours, theirs = tokenizer.get_vocab(), teachers.get_vocab()
    if ours != theirs:
        example = next((token for token in ours if theirs.get(token) != ours[token]), None)
        shown = f"{example!r} is id {ours[example]} here and {theirs.get(example)} there" if example else "it has more"
        raise UserError(
            f"peft.distill_from={cfg.peft.distill_from}: its vocabulary is not that of {cfg.model.name} ({shown})"
        )
