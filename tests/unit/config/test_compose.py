"""conf/: every file composes and passes the checks; faults of a command line are named, all at once."""

import subprocess
import sys
import time

import pytest
from omegaconf import DictConfig, OmegaConf

from llmft.__main__ import COMMANDS, split_command
from llmft.config.cli_args import quoted
from llmft.config.compose import composition_faults
from llmft.config.paths import conf_dir
from llmft.config.redact import safe_argument, save
from llmft.config.schema import RULES
from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import load as backbone
from llmft.runs.open import completed
from llmft.utils.errors import UserError
from tests.conftest import composed

GROUPS = sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra")
OPTIONS = [(f.parent.name, f.stem) for f in sorted(conf_dir().glob("*/[!_]*.yaml"))]


# Options with keys that the defaults have not.
WITH = ("peft=unfreeze", "optim=adamw_8bit", "scheduler=plateau", "generation=sample")
# What the other commands have of these groups.
COMMANDS_OF = {
    "model": ("preview", "answer", "chat", "serve"),
    "prompt": ("preview", "answer", "chat", "serve"),
    "data": ("preview",),
    "generation": ("answer", "evaluate", "chat", "serve"),
    "judge": ("evaluate",),
    "safety": ("serve",),
}


def test_the_commands_have_these_groups(load):
    chosen = {command: load(command=command) for command in COMMANDS if command not in ("train", "estimate")}
    found = {group: {c for c, cfg in chosen.items() if isinstance(cfg.get(group), DictConfig)} for group in GROUPS}
    found["data"] -= {"evaluate"}  # keys there, no group
    assert {group: commands for group, commands in found.items() if commands} == {
        group: set(commands) for group, commands in COMMANDS_OF.items()
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=tiny_gpt2", "output_dir=run", "+callbacks.x={a:1}", "peft=qlora", "data.split={val:0,test:0.1}"),
        ("~logger", "output_dir=run", "trainer=ddp", "model=tiny_t5", "++callbacks.progress.refresh_rate=0"),
    ],
)
def test_the_tests_own_way_to_compose_is_hydras(overrides, load):
    for _ in range(2):
        assert load(*overrides) == composed(*overrides)


def test_estimate_takes_what_train_takes(load):
    trained, estimated = load(), load(command="estimate")
    assert set(trained) <= set(estimated)
    assert {group: estimated[group] for group in ("trainer", "data", "peft")} == {
        group: trained[group] for group in ("trainer", "data", "peft")
    }


def test_the_groups_are_these():
    expected = (
        "callbacks data debug experiment generation judge logger model optim peft prompt safety scheduler trainer"
    )
    assert expected.split() == GROUPS


def test_every_command_has_a_config():
    assert {f.stem for f in conf_dir().glob("[!_]*.yaml")} == set(COMMANDS)


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
    elif group == "safety":
        cfg = load()  # of serve alone
    else:
        cfg = load(f"{group}={option}")
    check(cfg)
    others = COMMANDS_OF.get(group, ()) if option == min(name for g, name in OPTIONS if g == group) else ()
    for command in others:
        check(load(f"{group}={option}", command=command))


def test_every_rule_is_about_a_key_that_is_there(load):
    configs = [load(command=command) for command in COMMANDS] + [load(choice) for choice in WITH]
    for key in RULES:
        above, _, name = key.rpartition(".")
        parents = [OmegaConf.select(cfg, above) if above else cfg for cfg in configs]
        assert key.startswith(("judge.", "safety.")) or any(isinstance(p, DictConfig) and name in p for p in parents), (
            key
        )


def test_every_rule_of_a_judge_is_about_a_key_that_is_there(load):
    keys = {f"judge.{key}" for kind in ("ollama", "openai", "model") for key in load(f"judge={kind}").judge}
    assert {key for key in RULES if key.startswith("judge.")} <= keys


def test_every_rule_of_chat_and_serve_is_about_a_key_that_is_there_and_every_key_has_one(load):
    found = {"serve": load("safety=simple", command="serve"), "chat": load(command="chat")}
    keys = {f"{group}.{key}" for group in ("serve", "safety") for key in found["serve"][group]}
    keys |= {f"chat.{key}" for key in found["chat"].chat}
    rules = {key for key in RULES if key.startswith(("serve.", "safety.", "chat."))}
    assert rules == {key for key in keys if not key.endswith("_target_")}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rat=1", "optim.learning_rat: no such key. Did you mean optim.lr? Here there are: optim.lr, "),
        ("optim.learning_rate=1", "Did you mean optim.lr?"),
        ("data.batchsize=4", "data.batchsize: no such key. Did you mean data.batch_size?"),
        ("trainer.max_epoch=4", "Did you mean trainer.max_epochs?"),
        ("lora_r=4", "lora_r: no such key. Did you mean peft.r?"),
        ("model=tiny_gpt", "model=tiny_gpt: no such option. Did you mean tiny_gpt2? There are: distilgpt2, "),
        ("data=[academic", "data=[academic: "),
        ("scheduler=linar", "Did you mean linear?"),
    ],
)
def test_a_wrong_override_is_named_with_the_way_out(override, message):
    faults = composition_faults("train", ["model=tiny_gpt2", override])
    assert len(faults) == 1
    assert message in faults[0]


def test_all_wrong_overrides_are_named():
    faults = composition_faults("train", ["peft=none", "peft.r=3", "sed=1", "model=nope", "data.limit=3"])
    assert [fault.partition(":")[0] for fault in faults] == ["peft.r", "sed", "model=nope"]


def test_right_overrides_have_no_faults():
    assert (
        composition_faults("train", ["model=tiny_t5", "data=alpaca", "data.path=sample", "peft=none", "optim.lr=1e-3"])
        == []
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=-1", "optim.lr=-1: must be a number above 0"),
        ("optim.lr=abc", "optim.lr=abc: must be a number above 0"),
        ("optim.lr=nan", "optim.lr=nan: must be a number above 0"),
        ("optim.lr=1e39", "optim.lr=1e+39: must be a number above 0 that float32 can hold"),
        ("optim.lr=1e38", "optim.lr=1e+38: with optim.betas=[0.9, 0.999] and optim.weight_decay=0.0 a step is larger"),
        ("optim.lr=1e20 optim.weight_decay=1e20", "optim.weight_decay=1e+20 a step is larger than float32 can hold"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("data.batch_size=0", "data.batch_size=0: must be a whole number of at least 1"),
        ("data.batch_size=true", "data.batch_size=True: must be"),
        ("data.too_long=cut", "data.too_long=cut: must be one of error, drop, trim_prompt, trim_answer"),
        ("data.split.val=1.5", "data.split.val=1.5: must be a number from 0 to 1"),
        (
            "data.split={train:0.9,val:0.2,test:0}",
            "data.split: the shares add up to more than 1: train 0.9, val 0.2, test 0",
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
            "trainer.precision=16-mixed model=tiny_t5",
            "trainer.precision=16-mixed: T5 overflows in float16; use bf16-mixed or 32-true",
        ),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true: must be one of 32-true, bf16-mixed, 16-mixed"),
        (
            "model.dtype=bfloat16 peft=none",
            "model.dtype=bfloat16: it would lose small updates of full fine-tuning; use float32",
        ),
        (
            "model.dtype=bfloat16 peft=head",
            "model.dtype=bfloat16: it would lose small updates of peft=head; use float32",
        ),
        ("model.dtype=bfloat16 model.new_tokens=[x]", "it would lose small updates of model.new_tokens"),
        ("data.train_on=all model=tiny_t5", "data.train_on=all: a seq2seq model trains on the answer alone"),
        ("trainer.precision=16-mixed trainer=cpu", "trainer.precision=16-mixed: float16 needs a GPU"),
        ("peft.method=foo", "peft.method=foo: must be one of none, lora, head, unfreeze"),
        ("peft.quantise=int4", "peft.quantise=int4: must be nf4, fp4, int8 or null"),
        ("peft=unfreeze peft.schedule=[[1,2]]", "peft.schedule=[[1, 2]]: must be a list of [from, blocks], from 0 on"),
        ("peft=unfreeze peft.schedule=[[0,2],[3,1]]", "peft.schedule=[[0, 2], [3, 1]]: must be"),
        ("peft=unfreeze peft.schedule=[[0,all],[1,all]]", "peft.schedule=[[0, 'all'], [1, 'all']]: must be"),
        ("peft=unfreeze trainer=ddp", "peft=unfreeze: trains in one process, but trainer.devices is 2"),
        ("peft.distill_weight=0", "peft.distill_weight=0: must be a number above 0, up to 1"),
        ("scheduler=plateau scheduler.factor=1", "scheduler.factor=1: must be a number between 0 and 1"),
        ("peft=qlora peft.method=none", "peft.quantise=nf4: quantised weights cannot be trained, and peft.method=none"),
        ("peft=none +peft.quantise=int8", "peft.quantise=int8: quantised weights cannot be trained"),
        ("optim=adamw_8bit optim.bits=16", "optim.bits=16: must be 8 or 32"),
        ("model.family=seq2seq", "model.family=seq2seq: llmft.models.causal.Causal is of the other family"),
        ("prompt.template=x", "prompt.template: prompt=auto would not use it"),
        ("data.split=0.1", "data.split=0.1: must hold keys"),
        ("optim.betas=[2,3]", "optim.betas=[2, 3]: must be two numbers from 0 to below 1"),
        ("scheduler.name=foo", "scheduler.name=foo: must be one of linear, cosine"),
        ("scheduler.warmup_steps=1.0", "scheduler.warmup_steps=1.0: must be a whole number of steps"),
        ("trainer.val_check_interval=2.5", "trainer.val_check_interval=2.5: must be a whole number of batches"),
        (
            "callbacks.early_stopping.patience=1 data.split.val=0",
            "callbacks.early_stopping.patience=1: needs a validation set",
        ),
        ("model=_causal", "Missing mandatory value: model.name"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: needs an end; set trainer.max_steps"),
        (
            "optim._target_=os.system",
            "optim._target_=os.system: not allowed; classes come from torch.optim., llmft.models.optimizer.",
        ),
        ("+callbacks.evil._target_=subprocess.run", "callbacks.evil._target_=subprocess.run: not allowed"),
        ("optim._target_=torch.optim.AdamV", "optim._target_=torch.optim.AdamV: cannot be imported"),
        ("+optim.beta=0.9", "optim.beta: torch.optim.AdamW has no such argument. Did you mean betas?"),
        (
            "+trainer.max_epoch=3",
            "trainer.max_epoch: lightning.pytorch.Trainer has no such argument. Did you mean max_epochs?",
        ),
    ],
)
def test_a_config_with_a_fault_is_refused(override, message, load):
    with pytest.raises(UserError) as error:
        check(load(*override.split()))
    assert message in str(error.value)


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
        "data.split={val:0,test:0.6,train:0.6}": "data.split: the shares add up to more than 1",
        "objective=val/rouge": "objective=val/rouge: no such metric",
        "callbacks.checkpoints.monitor=loss": "callbacks.checkpoints.monitor=loss: must be a metric as it is logged, val/... or train/...",
        "trainer.max_steps=20": "",
        "scheduler.warmup_steps=20": "scheduler.warmup_steps=20: trainer.max_steps is 20, so the learning rate would never reach optim.lr",
        "model.family=seq2seq": "model.family=seq2seq: llmft.models.causal.Causal is of the other family",
        # targets
        "+optim.beta=0.9": "optim.beta: torch.optim.AdamW has no such argument. Did you mean betas?",
        # the model
        "model=tiny_gpt2": "",
        "data.max_prompt_tokens=4000": "data.max_prompt_tokens=4000 + data.max_answer_tokens=512 = 4512 tokens, but the model has 4096 positions",
        "peft.targets=[c_attn,q_proj]": "peft.targets: q_proj match no layer of this model; it has c_attn, c_fc, c_proj",
        "prompt=chat": "prompt=chat: this model's tokenizer has no chat template",
    }
    with pytest.raises(UserError) as error:
        check(load(*faults), architecture=architecture_faults)
    text = str(error.value)
    for message in faults.values():
        assert message in text
    assert text.startswith(f"config: {text.count(chr(10))} faults\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generation.max_new_tokens=4000", "data.max_prompt_tokens=512 + generation.max_new_tokens=4000 = 4512 tokens"),
        ("callbacks.samples.max_new_tokens=4000", "callbacks.samples.max_new_tokens=4000 = 4512 tokens"),
        ("model.lora_targets=[q_proj]", "model.lora_targets: q_proj match no layer of this model"),
        ("model.path=./nowhere/model", "model.path=./nowhere/model: no such folder"),
        ("+generation.temperature=0.5", "generation: "),
        ("+generation.foo=1", "generation.foo: transformers' GenerationConfig has no such setting"),
    ],
)
def test_what_the_model_cannot_do_is_found_without_its_weights(override, message, load, monkeypatch):
    monkeypatch.setattr(backbone, "load_model", None)
    with pytest.raises(UserError) as error:
        check(load("model=tiny_gpt2", override), architecture=architecture_faults)
    assert message in str(error.value)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "gemma_2b_it", "flan_t5_xl", "gpt2_medium"])
def test_a_right_model_has_no_faults_and_one_that_is_not_here_is_not_fetched(model, load):
    check(load(f"model={model}"), architecture=architecture_faults)


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        ("gpt2", "BloomConfig", "data.batching=packed: BloomForCausalLM has no positions that could start again"),
        ("flan_t5_small", "BartConfig", "data.batching=packed: BartForConditionalGeneration has no positions"),
        ("gpt2", "GPT2Config", ""),
        ("flan_t5_small", "T5Config", ""),
    ],
)
def test_packing_with_a_model_that_cannot_is_found_without_its_weights(model, config, said, load, tmp_path):
    import transformers

    getattr(transformers, config)().save_pretrained(tmp_path)
    cfg = load(f"model={model}", f"model.path={tmp_path}", "data.batching=packed", "peft=none", "prompt=plain")
    if said:
        with pytest.raises(UserError, match=said):
            check(cfg, architecture=architecture_faults)
    else:
        check(cfg, architecture=architecture_faults)


def test_a_rule_between_keys_is_not_asked_when_one_of_them_is_broken(load):
    with pytest.raises(UserError) as error:
        check(load("data.split.val=2", "callbacks.early_stopping.patience=3", "model.dtype=float16", "peft=none"))
    text = str(error.value)
    assert text.startswith("config: 2 faults\n")
    assert "data.split.val=2: must be a number from 0 to 1" in text
    assert "model.dtype=float16: must be one of auto, float32, bfloat16 (in float16 T5 overflows" in text


def test_a_run_of_an_older_version_gets_the_keys_that_have_come_since(load):
    cfg = load("model=tiny_t5", "data=alpaca", "peft=lora", "output_dir=run")  # else named by the second
    older = cfg.copy()
    OmegaConf.set_struct(older, False)
    for key in ("data.streaming", "data.train_on_turns", "model.new_tokens", "peft.distill_from"):
        group, name = key.split(".")
        older[group].pop(name)
    assert completed(older) == cfg


def test_a_users_package_may_be_allowed(load):
    with pytest.raises(UserError, match="not allowed"):  # a config's own word alone
        check(load("+callbacks.mine._target_=collections.Counter", "allow_targets=[collections]"))
    check(load("+callbacks.mine._target_=collections.Counter"), allow=["collections"])


def test_secrets_do_not_reach_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_KEY", "hunter2")
    cfg = OmegaConf.create(
        {
            "api_key": "sk-1",
            "hub": {"token": "hf_1", "pad_token_id": 3, "max_tokens": 4, "password": None},
            "url": "http://x/${oc.env:LLMFT_TEST_KEY}",
            "hop": "${url}/more",
            "plain": ["${oc.env:LLMFT_TEST_KEY}", "kept", "${hub.max_tokens}"],
        }
    )
    save(cfg, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert not any(secret in text for secret in ("hunter2", "sk-1", "hf_1"))
    again = OmegaConf.load(tmp_path / "config.yaml")
    assert OmegaConf.to_container(again, resolve=False) == {
        "api_key": "***",
        "hub": {"token": "***", "pad_token_id": 3, "max_tokens": 4, "password": None},
        "url": "http://x/${oc.env:LLMFT_TEST_KEY}",
        "hop": "${url}/more",
        "plain": ["${oc.env:LLMFT_TEST_KEY}", "kept", 4],
    }
    assert again.hop == "http://x/hunter2/more"  # it still means the same, where the variable is set
    assert safe_argument("model.hf_token=tok") == "model.hf_token=***"
    assert safe_argument("data.max_prompt_tokens=5") == "data.max_prompt_tokens=5"


@pytest.mark.parametrize(
    ("argument", "as_hydra_takes_it"),
    [
        ("question=What's LoRA, and (why) = [x]?", r"question='What\'s LoRA, and (why) = [x]?'"),
        ("question=back\\", "question='back\\\\'"),
        ("question='quoted'", "question='quoted'"),
        ("question=null", "question=null"),
        ("question=[INST] hi", "question='[INST] hi'"),
        ("question='tis", r"question='\'tis'"),
        ("question=", "question=''"),
        ("data.system=${oc.env:X}", "data.system=${oc.env:X}"),
        ("data.path=my rows, (1).jsonl", "data.path='my rows, (1).jsonl'"),
        ("debug=true", "debug='true'"),
        ("seed=1", "seed=1"),
        ("-m", "-m"),
    ],
)
def test_free_text_passes_hydras_grammar(argument, as_hydra_takes_it, load):
    assert quoted(argument, multirun=False) == as_hydra_takes_it
    if argument.startswith("question=") and argument not in ("question=null", "question='quoted'"):
        assert load(as_hydra_takes_it, command="answer").question == argument.partition("=")[2]


@pytest.mark.parametrize(
    "text", ["${HOME}", "what does ${oc.env:HOME} mean?", "\\${x}", "a\\\\${x}'b", "$x {y}", "\\\\"]
)
def test_free_text_is_never_an_interpolation(text, load):
    assert load(quoted(f"question={text}", multirun=False), command="answer").question == text


def test_a_swept_path_stays_a_list():
    assert quoted("data.path=a,b", multirun=True) == "data.path=a,b"


def test_the_first_word_is_the_command():
    assert split_command([]) == ("train", [])
    assert split_command(["model=x"]) == ("train", ["model=x"])
    assert split_command(["--help"]) == ("train", ["--help"])
    assert split_command(["preview", "data=x"]) == ("preview", ["data=x"])
    with pytest.raises(UserError, match=r"trian: no such command. Did you mean train\?"):
        split_command(["trian"])


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["preview", "--help"], ["answer", "--cfg", "job"]])
def test_help_and_cfg_answer_without_torch(arguments, tmp_path):
    start = time.perf_counter()
    code = "import sys, llmft.__main__ as m; sys.argv[0] = 'llmft'; code = m.run(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "model" in done.stdout
    print(f"{arguments}: {time.perf_counter() - start:.2f} s")
