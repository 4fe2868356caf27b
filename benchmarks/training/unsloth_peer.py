"""Unsloth's side, run in an environment of its own: TRL's SFTTrainer as Unsloth patches it, on a model that it has loaded.

    .venv-unsloth/bin/python -m training.unsloth_peer '{"trainer": "unsloth", "model": ..., "rows": ..., ...}'

Never run: Unsloth wants a GPU when it is imported, and none was at hand. Compare tokens per second: where a packed batch does not say
where its examples begin, it counts as one example, whose attention is more work than was done.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"  # it would ask the hub
import unsloth  # pyright: ignore[reportMissingImports]  # before transformers, peft and TRL, which it patches

# isort: split
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from training.peers import train


def model_of(given: dict[str, Any], _: Any) -> Any:
    """The same weights, and the same LoRA matrices in the same places."""
    length = given["arguments"].get("max_length", given["max_length"])
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        given["model"],
        max_seq_length=length,
        dtype=getattr(torch, given["dtype"]),
        load_in_4bit=False,
        use_gradient_checkpointing=False,  # as the other sides
    )
    lora = json.loads(Path(given["adapter"], "adapter_config.json").read_text(encoding="utf-8"))
    adapted = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["lora_alpha"],
        target_modules=lora["target_modules"],
        lora_dropout=0,
        use_gradient_checkpointing=False,
    )
    set_peft_model_state_dict(adapted, load_file(Path(given["adapter"], "adapter_model.safetensors")))
    return adapted


if __name__ == "__main__":
    train(json.loads(sys.argv[1]), model_of)
