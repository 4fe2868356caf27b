"""A peer's side, run in the peers' environment: TRL's SFTTrainer, or transformers' Seq2SeqTrainer.

    .venv-peers/bin/python -m training.peers '{"trainer": "trl", "model": ..., "rows": ..., ...}'

The examples are llmft's, tokenized: only the training is compared.
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from training.turns import Turns, contents, of_cuda


class InTurns(TrainerCallback):
    """Take steps in turns with the other sides."""

    def __init__(self, turns: Turns, facts: dict[str, Any]) -> None:
        self.turns, self.facts, self.step = turns, facts, {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.turns.ready(steps=state.max_steps, **self.facts)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.turns.took(self.step)


def by_length(rows: Any, size: int, blocks: int) -> list[int]:
    """The order of LengthGroupedSampler, in blocks of as many batches as it uses for the full data set.

    For the few examples of a benchmark it would use fewer. The batches are shuffled instead of the longest first, because
    the warm-up would always consume that one.
    """
    order = get_length_grouped_indices([len(row) for row in rows], size, blocks, torch.Generator().manual_seed(1))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    mixed = torch.randperm(len(batches), generator=torch.Generator().manual_seed(1)).tolist()
    return [row for number in mixed for row in batches[number]]


def recorded(base: type, callback: InTurns, blocks: int) -> type:
    """The trainer, which passes its loss and batch to the callback; nothing is read from the device before the clock stops."""

    class Recorded(base):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            batch = dict(inputs)
            loss = super().training_step(model, inputs, *rest, **named)
            positions = batch.get("position_ids")
            rows = len(batch["input_ids"]) if positions is None else (positions == 0).sum()
            callback.step = contents(batch, rows, seq2seq="decoder_input_ids" in batch) | {"loss": loss}
            return loss

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            return by_length(self.train_dataset["input_ids"], self.args.train_batch_size, blocks)

    return Recorded


def arguments(given: dict[str, Any], base: type) -> Any:
    """llmft's defaults as arguments of the peer, updated with those of the case."""
    common = {
        "output_dir": "peer",
        "per_device_train_batch_size": given["batch_size"],
        "num_train_epochs": 1,
        "learning_rate": given["lr"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
        "use_cpu": given["device"] == "cpu",
        "dataloader_pin_memory": given["device"] != "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": 1,
    }
    return base(**(common | given["arguments"]))


def model_of(given: dict[str, Any], auto_class: Any) -> Any:
    config = transformers.AutoConfig.from_pretrained(given["model"])
    for name in ("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)  # llmft's side has model.dropout=0
    options = {"dtype": getattr(torch, given["dtype"]), "attn_implementation": given["attention"]}
    model = auto_class.from_pretrained(given["model"], config=config, **options)
    if given["adapter"]:
        model = PeftModel.from_pretrained(model, given["adapter"], is_trainable=True)
    return model


def best_on_gpu(given: dict[str, Any]) -> dict[str, Any]:
    """With FlashAttention, which padding-free batches need, and Liger kernels, where they are installed."""
    flash, liger = find_spec("flash_attn") is not None, find_spec("liger_kernel") is not None
    packs = given["arguments"].get("packing", False)
    faster = {"use_liger_kernel": liger} | ({"padding_free": True} if flash and not packs else {})
    attention = "flash_attention_2" if flash else given["attention"]
    return given | {"attention": attention, "arguments": given["arguments"] | faster}


def train(given: dict[str, Any], load: Callable[[dict[str, Any], Any], Any] = model_of) -> None:
    """Train as the side's command line says.

    Args:
        given: That JSON object.
        load: Loads the model, with its adapter.
    """
    rows = [json.loads(line) for line in Path(given["rows"]).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    facts = {"threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__}
    facts["kernels"] = f"{given['attention']} in {given['dtype']}" + (
        ", Liger" if given["arguments"].get("use_liger_kernel") else ""
    )
    turns = of_cuda(torch) if given["device"] == "cuda" else Turns()
    if given["trainer"] != "transformers":
        import trl  # pyright: ignore[reportMissingImports]

        callback = InTurns(turns, facts | {"trl": trl.__version__})
        options = {"max_length": given["max_length"], "packing": False}
        args = arguments(given | {"arguments": options | given["arguments"]}, trl.SFTConfig)
        model, trainer, collator = load(given, transformers.AutoModelForCausalLM), trl.SFTTrainer, None
    else:
        callback = InTurns(turns, facts)
        args = arguments(given, transformers.Seq2SeqTrainingArguments)
        model, trainer = load(given, transformers.AutoModelForSeq2SeqLM), transformers.Seq2SeqTrainer
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
        rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    recorded(trainer, callback, max(1, min(given["rows_in_all"] // (given["batch_size"] * 4), 50)))(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[callback],
    ).train()


if __name__ == "__main__":
    arguments_given = json.loads(sys.argv[1])
    train(best_on_gpu(arguments_given) if arguments_given["best_on_gpu"] else arguments_given)
