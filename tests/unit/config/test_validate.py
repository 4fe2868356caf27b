"""Every option of conf/ passes the checks; every faulty value is named, all in one message."""

import pytest

from llmft.commands.estimate import is_elsewhere
from llmft.config.paths import conf_dir
from llmft.config.schema import COMMANDS, EstimateConfig, TrainConfig
from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import load as backbone
from llmft.utils.errors import UserError
from tests.unit.config.test_compose import COMMANDS_OF

OPTIONS = [(f.parent.name, f.stem) for f in sorted(conf_dir().glob("*/[!_]*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes_the_checks(group, option, load):
    if group == "callbacks" and option != "default":
        cfg = load()  # the single callbacks are parts of the default
        assert option in cfg.callbacks
    elif (group, option) == ("debug", "true"):
        cfg = load("debug='true'")
        assert cfg.show_traceback
    elif option in ("paged_adamw", "psychology_gemma_2b_qlora"):
        cfg = load(f"{group}={option}", "optim.fallback=true")  # they need a CUDA GPU
    elif option in ("marian", "auto") and group == "model":
        cfg = load(f"model={option}", "model.path=tiny:t5")
    elif group == "safety":
        cfg = load()  # of serve alone
    else:
        cfg = load(f"{group}={option}")
    check(cfg, TrainConfig)
    others = (
        COMMANDS_OF.get(group, ())
        if option == min(name for g, name in OPTIONS if g == group and name != "auto")
        else ()
    )
    for command in others:
        check(load(f"{group}={option}", command=command), COMMANDS[command])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=-1", "optim.lr=-1: must be a number above 0"),
        ("optim.lr=abc", "optim.lr=abc: must be a number above 0"),
        ("optim.lr=nan", "optim.lr=nan: must be a number above 0"),
        ("optim.lr=1e39", "optim.lr=1e+39: must be a number above 0 that float32 can hold"),
        (
            "optim.lr=1e38",
            "optim.lr=1e+38: with optim.betas=[0.9, 0.999] and optim.weight_decay=0.0 a step overflows float32",
        ),
        ("optim.lr=1e20 optim.weight_decay=1e20", "optim.weight_decay=1e+20 a step overflows float32"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("data.batch_size=0", "data.batch_size=0: must be a whole number of at least 1"),
        ("data.batch_size=true", "data.batch_size=True: must be"),
        ("data.too_long=cut", "data.too_long=cut: must be one of error, drop, trim_prompt, trim_answer"),
        ("data.split.val=1.5", "data.split.val=1.5: must be a number from 0 to 1"),
        (
            "data.split={train:0.9,val:0.2,test:0}",
            "data.split: the fractions add up to more than 1: train 0.9, val 0.2, test 0",
        ),
        (
            "data.split_by=position data.test_path=x.jsonl data.split={val:0.1,test:0.1}",
            "data.split_by=position: with files of held-out rows, set data.split.val=0, or use data.split_by=prompt",
        ),
        (
            "data=mix data.split_by=position data.sets.academic.val_path=x.jsonl data.split={val:0.1,test:0}",
            "data.split_by=position: with files of held-out rows, set data.split.val=0, or use data.split_by=prompt",
        ),
        (
            "+data.extra_val.med=x.jsonl data.streaming=true trainer.max_steps=1",
            "data.extra_val.med: a stream takes its held-out rows from data.path",
        ),
        ("+data.extra_val.med.x=1", "data.extra_val={'med': {'x': 1}}: must be a mapping of names"),
        ("+data.extra_val={a/b:x.jsonl}", "must be a mapping of names (of letters, digits, - and _) to files"),
        (
            "+data.extra_val.med=x.jsonl objective=val/med/los",
            "objective=val/med/los: no such metric. Did you mean val/med/loss?",
        ),
        ("peft.dropout=1", "peft.dropout=1: must be a number from 0 to below 1"),
        ("trainer.devices=0", "trainer.devices=0: must be a whole number of at least 1"),
        (
            "scheduler.warmup_steps=1.5",
            "scheduler.warmup_steps=1.5: must be a whole number of steps, or a fraction below 1",
        ),
        ("objective=val/los", "objective=val/los: no such metric. Did you mean val/loss?"),
        ("objective=train/los", "objective=train/los: no such metric. Did you mean train/loss?"),
        (
            "trainer.precision=bf16-true",
            "trainer.precision=bf16-true: must be one of auto, 32-true, bf16-mixed, 16-mixed",
        ),
        (
            "model.dtype=bfloat16 peft=none",
            "model.dtype=bfloat16: would lose small updates with full fine-tuning; use float32",
        ),
        (
            "model.dtype=bfloat16 peft=head",
            "model.dtype=bfloat16: would lose small updates with peft=head; use float32",
        ),
        ("model.dtype=bfloat16 model.new_tokens=[x]", "would lose small updates of model.new_tokens"),
        ("data.train_on=all model=tiny_t5", "data.train_on=all: a seq2seq model can only train on the answer"),
        ("trainer.precision=16-mixed trainer=cpu", "trainer.precision=16-mixed: float16 needs a GPU"),
        (
            "trainer.precision=16-mixed trainer=fsdp",
            "trainer.precision=16-mixed: Lightning scales no gradients that trainer=fsdp",
        ),
        ("peft.method=foo", "peft.method=foo: must be one of none, lora, head, unfreeze"),
        ("peft.quantise=int4", "peft.quantise=int4: must be nf4, fp4, int8 or null"),
        (
            "peft=unfreeze peft.schedule=[[1,2]]",
            "peft.schedule=[[1, 2]]: must be a list of [start, blocks], the first start 0",
        ),
        ("peft=unfreeze peft.schedule=[[0,2],[3,1]]", "peft.schedule=[[0, 2], [3, 1]]: must be"),
        ("peft=unfreeze peft.schedule=[[0,all],[1,all]]", "peft.schedule=[[0, 'all'], [1, 'all']]: must be"),
        ("peft=unfreeze trainer=ddp", "peft=unfreeze: only trains in one process, but trainer.devices is 2"),
        ("peft.distill_weight=0", "peft.distill_weight=0: must be a number above 0, up to 1"),
        ("scheduler=plateau scheduler.factor=1", "scheduler.factor=1: must be a number between 0 and 1"),
        ("peft=qlora peft.method=none", "peft.quantise=nf4: quantized weights cannot be trained, but peft.method=none"),
        ("peft=none +peft.quantise=int8", "peft.quantise=int8: quantized weights cannot be trained"),
        (
            "peft=qlora peft.compute_dtype=bfloat16 evaluate.dtype=float32",
            "evaluate.dtype=float32: the quantized base multiplies in bfloat16; use peft.compute_dtype=float32",
        ),
        ("optim=adamw_8bit optim.bits=16", "optim.bits=16: must be 8 or 32"),
        ("model.family=seq2seq", "model.family=seq2seq: does not match llmft.models.causal.CausalForward"),
        ("prompt.template=x", "prompt.template: is ignored by prompt=auto"),
        ("data.split=0.1", "data.split=0.1: must be a mapping"),
        ("optim.betas=[2,3]", "optim.betas=[2, 3]: must be two numbers from 0 to below 1"),
        ("scheduler.name=foo", "scheduler.name=foo: must be one of linear, cosine"),
        ("scheduler.warmup_steps=1.0", "scheduler.warmup_steps=1.0: must be a whole number of steps"),
        ("trainer.val_check_interval=2.5", "trainer.val_check_interval=2.5: must be a whole number of batches"),
        (
            "callbacks.early_stopping.patience=1 data.split.val=0",
            "callbacks.early_stopping.patience=1: needs a validation set",
        ),
        ("model=_causal", "model.name: must be set\n  - model.path: must be set"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: the training would never end; set trainer.max_steps"),
        (
            "optim._target_=os.system",
            "optim._target_=os.system: not allowed; classes here must come from torch.optim., llmft.models.optimizer.",
        ),
        ("+callbacks.evil._target_=subprocess.run", "callbacks.evil._target_=subprocess.run: not allowed"),
        ("optim._target_=torch.optim.AdamV", "optim._target_=torch.optim.AdamV: cannot be imported"),
        ("+optim.beta=0.9", "optim.beta: torch.optim.AdamW has no such argument. Did you mean betas?"),
        (
            "+trainer.max_epoch=3",
            "trainer.max_epoch: lightning.pytorch.Trainer has no such argument. Did you mean max_epochs?",
        ),
        (
            "model=tiny_t5 model.attention=flash trainer=fsdp",
            "model.attention=flash: calls the encoder separately for a seq2seq model",
        ),
        (
            "model=tiny_llama model.shared_prefix=always trainer=fsdp",
            "model.shared_prefix=always: trainer=fsdp keeps padding; use off (or auto)",
        ),
        ("model=tiny_llama model.attention=flex trainer=fsdp", "model.attention=flex: was not tried with trainer=fsdp"),
        (
            "model=tiny_llama model.padding=skipped trainer=fsdp",
            "model.padding=skipped: trainer=fsdp needs the same module calls",
        ),
    ],
)
def test_a_config_with_a_fault_is_refused(override, message, load):
    with pytest.raises(UserError) as error:
        check(load(*override.split()), TrainConfig)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["flash", "flex"])
def test_attention_by_lengths_is_refused_beside_what_it_does_not_do(name, load):
    cfg = load(
        "model=tiny_llama", f"model.attention={name}", "model.padding=kept", "model.shared_prefix=exact",
        "performance=plain", "peft.distill_from=tiny_llama",
    )  # fmt: skip
    with pytest.raises(UserError) as error:
        check(cfg, TrainConfig)
    for reason in (
        "takes batches without padding; use model.padding=skipped (or auto), or sdpa",
        "attends to examples, not to a tree of their prefixes; use model.shared_prefix=off (or auto)",
        "performance=plain computes as transformers does, with padding; use sdpa",
        "with peft.distill_from, teacher and student run on the same padded batch; use sdpa",
    ):
        assert f"model.attention={name}: {reason}" in str(error.value)


def test_float16_where_a_gpu_would_be_taken_if_there_were_one(load, monkeypatch):
    for there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        if there:
            check(load("trainer.precision=16-mixed"), TrainConfig)
        else:
            with pytest.raises(UserError, match="16-mixed: float16 needs a GPU, and there is none here"):
                check(load("trainer.precision=16-mixed"), TrainConfig)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed: this GPU (Tesla T4) emulates bfloat16, which is slower "
                                         "than float32; use 32-true, or 16-mixed (not for T5)"),
        ("peft=qlora peft.compute_dtype=bfloat16", "peft.compute_dtype=bfloat16: this GPU (Tesla T4) emulates bfloat16, which is "
                                                   "slower than float32; use float16 (not for T5) or float32"),
        ("peft=qlora peft.compute_dtype=float16", None),
        ("peft=qlora peft.compute_dtype=float16 trainer=cpu", "peft.compute_dtype=float16: needs a GPU"),
        ("peft=qlora peft.compute_dtype=float16 model=tiny_t5", "peft.compute_dtype=float16: T5 overflows in float16; use bfloat16"),
        ("trainer.precision=bf16-mixed trainer=cpu", None),
    ],
)  # fmt: skip
def test_bfloat16_on_a_gpu_that_emulates_it_is_refused(override, message, load, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Tesla T4")
    cfg = load(*override.split())
    if message is None:
        check(cfg, TrainConfig, architecture=architecture_faults)
    else:
        with pytest.raises(UserError) as error:
            check(cfg, TrainConfig, architecture=architecture_faults)
        assert message in str(error.value)


@pytest.mark.parametrize(
    "override",
    ["trainer.precision=16-mixed", "optim=paged_adamw", "peft=qlora peft.compute_dtype=float16"],
)
def test_a_run_that_was_trained_on_a_gpu_is_opened_without_one(override, load):
    check(load(*override.split()), TrainConfig, stored=True)


@pytest.mark.parametrize("gpu", ["trainer=gpu", "estimate.gpu_gib=22"])
def test_a_training_on_a_gpu_that_is_not_here_is_estimated(gpu, load):
    cfg = load("optim=paged_adamw", gpu, command="estimate")
    check(cfg, EstimateConfig, models=False, elsewhere=is_elsewhere(cfg))
    assert not is_elsewhere(load("optim=paged_adamw", command="estimate"))


def test_early_stopping_takes_a_validation_file_too(load):
    stopping = ("callbacks.early_stopping.patience=1", "data.split.val=0", "data.val_path=x.jsonl")
    further = ("+data.extra_val.law=x.jsonl", "objective=val/law/perplexity")
    check(load(*stopping, *further), TrainConfig)


def test_all_faults_of_all_groups_come_in_one_message_before_anything_is_loaded(load, monkeypatch):
    monkeypatch.setattr(backbone, "load_model", None)
    faults = {
        # values
        "optim.lr=0": "optim.lr=0: must be a number above 0",
        "data.limit=0": "data.limit=0: must be a whole number of at least 1, or null",
        "generation.num_beams=0": "generation.num_beams=0: must be a whole number of at least 1",
        # between groups
        "trainer.precision=16-mixed": "trainer.precision=16-mixed: float16 needs a GPU",
        "trainer=cpu": "",
        "callbacks.early_stopping.patience=1": "callbacks.early_stopping.patience=1: needs a validation set",
        "data.split={val:0,test:0.6,train:0.6}": "data.split: the fractions add up to more than 1",
        "objective=val/rouge": "objective=val/rouge: no such metric",
        "callbacks.checkpoints.monitor=loss": "callbacks.checkpoints.monitor=loss: must be a logged metric, val/... or train/...",
        "trainer.max_steps=20": "",
        "scheduler.warmup_steps=20": "scheduler.warmup_steps=20: trainer.max_steps is 20, so the learning rate would never reach optim.lr",
        # targets
        "+optim.beta=0.9": "optim.beta: torch.optim.AdamW has no such argument. Did you mean betas?",
        # the model
        "model=tiny_gpt2": "",
        "data.max_prompt_tokens=4000": "data.max_prompt_tokens=4000 + data.max_answer_tokens=512 = 4512 tokens, ",
        "peft.targets=[c_attn,q_proj]": "peft.targets: q_proj match no layer of this model; it has c_attn, c_fc, c_proj",
        "prompt=chat": "prompt=chat: this model's tokenizer has no chat template",
    }
    with pytest.raises(UserError) as error:
        check(load(*faults), TrainConfig, architecture=architecture_faults)
    text = str(error.value)
    for message in faults.values():
        assert message in text
    assert text.startswith(f"config: {text.count(chr(10))} faults\n")


def test_a_rule_between_keys_is_not_asked_when_one_of_them_is_broken(load):
    with pytest.raises(UserError) as error:
        check(
            load("data.split.val=2", "callbacks.early_stopping.patience=3", "model.dtype=float16", "peft=none"),
            TrainConfig,
        )
    text = str(error.value)
    assert text.startswith("config: 2 faults\n")
    assert "data.split.val=2: must be a number from 0 to 1" in text
    assert "model.dtype=float16: must be one of auto, float32, bfloat16 (T5 overflows in float16" in text


def test_a_users_package_may_be_allowed(load):
    with pytest.raises(UserError, match="not allowed"):  # a config's own word alone
        check(load("+callbacks.mine._target_=collections.Counter", "allow_targets=[collections]"), TrainConfig)
    check(load("+callbacks.mine._target_=collections.Counter"), TrainConfig, allow=["collections"])
