"""Goal -> command line: the first table of docs/support.md; tests/unit/docs/test_support.py composes and checks each."""

from typing import NamedTuple

COMMANDS = "tests/unit/docs/test_docs.py::test_every_command_runs"
RANKS = "tests/guarantees/test_ranks_change_nothing.py::test_ranks_change_nothing"
NOT_RUN = ""  # needs a GPU


class Goal(NamedTuple):
    """Something that a user wants to do.

    Attributes:
        goal: In a few words.
        command: The command line after ``python -m llmft``.
        test: Pytest node id of the test that runs this command, or the same keys with a tiny model; empty if none does.
    """

    goal: str
    command: str
    test: str = COMMANDS


MINE = "data=academic data.path=my.jsonl"
GOALS = (
    Goal("Fully fine-tune T5 on a CPU", f"model=flan_t5_small {MINE} peft=none"),
    Goal("LoRA on a causal model, on a CPU", f"model=smollm2_135m {MINE} peft=lora"),
    Goal("LoRA on all linear layers of T5", f"model=flan_t5_base {MINE} peft=lora peft.targets=all-linear"),
    Goal(
        "Rows in columns of your own", "data=custom data.path=qa.csv data.columns.instruction=q data.columns.output=a"
    ),
    Goal("Train every assistant turn of a conversation", f"{MINE} data.train_on_turns=all"),
    Goal(
        "Long rows",
        f"{MINE} data.max_prompt_tokens=3072 data.max_answer_tokens=1024 data.too_long=trim_prompt data.batch_size=1 "
        "trainer.accumulate_grad_batches=8 model.gradient_checkpointing=true",
    ),
    Goal("Many short rows", f"{MINE} data.batching=packed data.pack_tokens=2048 data.batch_size=2"),
    Goal("Rows of very different lengths", f"{MINE} data.batching=tokens data.tokens_per_batch=4096"),
    Goal("More rows than fit on the disk as tokens", f"{MINE} data.streaming=true trainer.max_steps=200"),
    Goal(
        "Less memory", f"{MINE} data.batch_size=1 trainer.accumulate_grad_batches=8 model.gradient_checkpointing=true"
    ),
    Goal(
        "Whether the training computes what it should", f"prove model=smollm2_135m {MINE} peft.dropout=0 prove.steps=20"
    ),
    Goal("Memory and time before a training", f"estimate model=flan_t5_large {MINE} peft=qlora"),
    Goal(
        "QLoRA on one GPU",
        f"model=tinyllama_1_1b_chat {MINE} peft=qlora trainer=gpu",
        NOT_RUN,
    ),
    Goal("QLoRA of T5 on one GPU", f"model=flan_t5_xl {MINE} peft=qlora trainer=gpu", NOT_RUN),
    Goal("Two processes on one machine, without a GPU", f"{MINE} trainer=ddp trainer.accelerator=cpu", RANKS),
    Goal("Two GPUs, a full copy of the model on each", f"{MINE} trainer=ddp trainer.accelerator=gpu", NOT_RUN),
    Goal(
        "A model that does not fit on one GPU",
        f"model=flan_t5_xl {MINE} peft=none trainer=fsdp trainer.accelerator=gpu trainer.precision=bf16-mixed",
        NOT_RUN,
    ),
    Goal("Continue training an adapter", f"model=smollm2_135m {MINE} peft=lora peft.adapter=my-run"),
    Goal(
        "Learn from a larger model",
        f"model=flan_t5_small {MINE} peft=none peft.distill_from=flan_t5_large",
        "tests/integration/models/test_distillation.py::test_a_run_with_a_teacher",
    ),
    Goal("Compare learning rates", f"-m {MINE} model=smollm2_135m optim.lr=1e-4,3e-4,1e-3"),
    Goal("Resume, or train for longer", "resume=my-run trainer.max_epochs=6"),
    Goal("Tuned model against its base", "evaluate run=my-run"),
    Goal(
        "Adapter for a server that reads PEFT adapters (vLLM: not run)", "export run=my-run to=my-adapter form=adapter"
    ),
    Goal("Full weights that need no peft", "export run=my-run to=my-model"),
    Goal("One archive with checksums", "export run=my-run to=my-model.zip zip=true"),
    Goal(
        "Onto the Hub (tested against a stand-in for its API)",
        "export run=my-run hub=owner/name",
        "tests/integration/commands/test_export.py::test_a_command_pushes_what_it_checked",
    ),
)
