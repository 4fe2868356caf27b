"""The chat templates of the installed ``trl``, each with a small tokenizer that has its control tokens."""

import json
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(str(distribution("trl").locate_file("trl/chat_templates")))
VISION = ("idefics3", "llava_next", "smolvlm", "qwen2_5_vl", "qwen3_vl", "lfm2_2_5_vl")
TEMPLATES = sorted(
    file.stem
    for file in FOLDER.glob("*.jinja")
    if not file.stem.endswith("_training") and not file.stem.startswith(VISION)
)
CORPUS = ["the user asks\n\nand the assistant answers\n", "system\n\n\n", '{"name": "get_time", "arguments": {}}'] * 20


class Published(NamedTuple):
    """The added tokens of a family of models, as published: special ones, others, BOS, EOS and other stops of the model."""

    special: str
    plain: str = ""
    bos: str | None = None
    eos: str = "<|im_end|>"
    stops: str = ""
    rstrip: bool = False


QWEN = Published("<|im_start|> <|im_end|> <|endoftext|>", "<tool_call> </tool_call>", stops="<|endoftext|>")
HYBRID = QWEN._replace(plain="<tool_call> </tool_call> <tool_response> </tool_response> <think> </think>")
COHERE = Published(
    "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|>",
    bos="<BOS_TOKEN>",
    eos="<|END_OF_TURN_TOKEN|>",
)
DEEPSEEK = Published(
    "",
    "<｜User｜> <｜Assistant｜> <think> </think> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜>"
    " <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜> <｜tool▁sep｜>",
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
)
GEMMA = Published("<start_of_turn> <end_of_turn>", bos="<bos>", eos="<eos>", stops="<end_of_turn>")
GEMMA4 = Published(
    '<|turn> <turn|> <|channel> <channel|> <|tool_call> <tool_call|> <|tool_response> <tool_response|> <|tool> <tool|> <|"|>'
    " <|think|> <|image|> <|audio|> <|video|>",
    bos="<bos>",
    eos="<eos>",
    stops="<turn|> <|tool_response>",
)
LFM2 = Published(
    "<|im_start|> <|im_end|> <|tool_list_start|> <|tool_list_end|> <|tool_call_start|> <|tool_call_end|> <|tool_response_start|>"
    " <|tool_response_end|>",
    bos="<|startoftext|>",
)
LLAMA3 = Published(
    "<|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>",
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    stops="<|eom_id|>",
)
PHI3 = Published(
    "<|system|> <|user|> <|assistant|> <|end|>", eos="<|endoftext|>", stops="<|assistant|> <|end|>", rstrip=True
)
PUBLISHED = {
    "cohere": COHERE,
    "cohere2": COHERE._replace(special=COHERE.special + " <|START_RESPONSE|> <|END_RESPONSE|>"),
    "deepseek_r1_distill": DEEPSEEK,
    "deepseekv3": DEEPSEEK,
    "diffusion_gemma": GEMMA4,
    "gemma": GEMMA,
    "gemma3": GEMMA._replace(special=GEMMA.special + " <start_of_image>"),
    "gemma4": GEMMA4,
    "gemma4_v2": GEMMA4,
    "gemma4_v3": GEMMA4,
    "gemma4_v4": GEMMA4,
    "gemma4_v5": GEMMA4,
    "glm4moe": Published(
        "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
        "<think> </think> <tool_call> </tool_call> <tool_response> </tool_response> <arg_key> </arg_key> <arg_value> </arg_value>"
        " /nothink",
        eos="<|endoftext|>",
        stops="<|user|> <|observation|>",
    ),
    "gptoss": Published(
        "<|start|> <|end|> <|message|> <|channel|> <|constrain|> <|return|> <|call|>",
        bos="<|startoftext|>",
        eos="<|return|>",
        stops="<|endoftext|> <|call|>",
    ),
    "lfm2": LFM2,
    "lfm2_v2": LFM2,
    "lfm2_2_5": LFM2._replace(plain="<think> </think>"),
    "lfm2_2_5_v2": LFM2._replace(plain="<think> </think>"),
    "llama3": LLAMA3,
    "llama3_1": LLAMA3,
    "llama3_2": LLAMA3,
    "muse_glimmer": Published("<|start|> <|message|> <|eom|>", bos="<|begin_of_text|>", eos="<|eot|>"),
    "nemotron_3_nano": HYBRID,
    "nemotron_3_super": HYBRID,
    "nemotron_3_ultra": HYBRID,
    "nemotron_3_5_lightning": HYBRID,
    "phi3": PHI3,
    "phi3_5": PHI3,
    "qwen2_5": QWEN,
    "qwen3": HYBRID,
    "qwen3_5_nothink": HYBRID,
    "qwen3_5_think": HYBRID,
    "qwen3_6": HYBRID,
    "qwen3_8": HYBRID,
    "qwen3_instruct_2507": HYBRID,
}


@cache
def tokenizer_of(name: str) -> Any:
    """A small BPE over bytes with the control tokens and the chat template of a model."""
    published = PUBLISHED[name]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)  # pyright: ignore[reportCallIssue]
    raw.train_from_iterator(CORPUS, trainer)
    special = dict.fromkeys([*published.special.split(), *published.stops.split()])
    raw.add_special_tokens([AddedToken(text, special=True, rstrip=published.rstrip) for text in special])
    raw.add_tokens([AddedToken(text, special=False) for text in published.plain.split()])
    names = {"bos_token": published.bos, "eos_token": published.eos, "pad_token": published.eos}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, **{k: v for k, v in names.items() if v}
    )
    tokenizer.chat_template = source_of(name)
    return tokenizer


def source_of(name: str) -> str:
    """The template."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def call(name: str, **arguments: Any) -> str:
    """A tool call as a row of the OpenAI shape has it."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return json.dumps({"id": "callabc12", "type": "function", "function": function})
