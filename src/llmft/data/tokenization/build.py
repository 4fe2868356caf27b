"""Build the codec of a run from the model family, the tokenizer and ``prompt=``."""

from collections.abc import Sequence
from typing import Any

from llmft.config.groups import prompt_config
from llmft.config.schema.model import Prompt
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.codec import Codec, Seq2SeqCodec
from llmft.data.tokenization.frames import source_frame
from llmft.data.tokenization.source import named_templates, with_settings
from llmft.data.tokenization.template import PromptTemplate
from llmft.utils.errors import UserError


def codec_for(
    family: str,
    tokenizer: Any,
    prompt: Prompt,
    data_prompt: str | None,
    train_on: str,
    train_on_turns: str = "last",
    reasoning: str = "template",
    stops: Sequence[int] = (),
) -> tuple[Codec, str]:
    """The codec of a run, and the name of its prompt (which ``prompt=auto`` chooses).

    Args:
        family: ``seq2seq`` or ``causal``.
        tokenizer: A Hugging Face tokenizer.
        prompt: The config of the prompt group.
        data_prompt: The prompt that belongs to the data set, or None.
        train_on: ``answer`` or ``all``.
        train_on_turns: ``last`` or ``all``.
        reasoning: ``data.reasoning``.
        stops: Ids that end a generation of the model, besides the tokenizer's EOS.

    Raises:
        UserError: ``prompt=chat`` and the tokenizer has no chat template, the template cannot be trained with, or
            ``train_on=all`` with a seq2seq model.
    """
    own, with_tools = named_templates(tokenizer.chat_template, prompt.template_name)
    name, source = chosen_prompt(
        prompt.name, prompt.template, data_prompt, own, family, translates=_translates(tokenizer)
    )
    if source is None:
        raise UserError(
            f"prompt={name}: this model's tokenizer has no chat template; choose alpaca, plain, inst, source or t5"
        )
    if train_on == "all" and family == "seq2seq":
        raise UserError("data.train_on=all: a seq2seq model trains on the answer alone; use data.train_on=answer")
    if name != "chat":
        source, with_tools = _framed(source, tokenizer, family), None
    ends = tuple(dict.fromkeys([tokenizer.eos_token_id, *stops]))
    ending = tuple(tokenizer.convert_ids_to_tokens([end for end in ends if end is not None and end < len(tokenizer)]))
    variables = {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}

    def made(text: str, other: PromptTemplate | None = None, *, needs_tools: bool = False) -> PromptTemplate:
        text = with_settings(text, prompt.template_kwargs, prompt.date)
        return PromptTemplate(text, _controls(tokenizer, text), variables, other, reasoning, ending, needs_tools)

    template = made(source, made(with_tools, needs_tools=True) if with_tools else None)
    if family == "seq2seq":
        return Seq2SeqCodec(tokenizer, template, train_on, train_on_turns), name
    codec = CausalCodec(tokenizer, template, train_on, train_on_turns)
    codec.check()
    return codec, name


def _framed(source: str, tokenizer: Any, family: str) -> str:
    """A text template with the special tokens that the tokenizer adds to raw text, so that ids need none added."""
    before, after = source_frame(tokenizer)
    if family == "seq2seq":
        code = getattr(tokenizer, "target_code", "")  # of a multilingual Marian model, in the source
        head = _written(tokenizer, before) + (f"{{{{- {code!r} -}}}}" if code else "")
        return "{%- set turn_end = '' -%}" + head + source + _written(tokenizer, after)
    bos = "{{- bos_token -}}" if tokenizer.bos_token and before[:1] == (tokenizer.bos_token_id,) else ""
    return "{%- set turn_end = eos_token -%}" + bos + source


def _written(tokenizer: Any, ids: Sequence[int]) -> str:
    """Special tokens in Jinja.

    Raises:
        UserError: The tokenizer would not find one of them in a rendered prompt.
    """
    unknown = tokenizer.convert_ids_to_tokens([i for i in ids if i not in tokenizer.added_tokens_decoder])
    if unknown:
        raise UserError(
            f"model: its tokenizer adds {', '.join(unknown)} to a text, but does not find it in one; its files must list it as "
            "an added token"
        )
    names = {tokenizer.bos_token_id: "bos_token", tokenizer.eos_token_id: "eos_token"}
    tokens = [names.get(i) or repr(tokenizer.convert_ids_to_tokens(i)) for i in ids]
    return "".join(f"{{{{- {token} -}}}}" for token in tokens)


def _controls(tokenizer: Any, source: str) -> tuple[str, ...]:
    """Special tokens, and other added tokens that the template contains (white space, as in Gemma, is ordinary text)."""
    added, special = tokenizer.added_tokens_decoder.values(), set(tokenizer.all_special_tokens)
    return tuple(
        t.content
        for t in added
        if t.special or t.content in special or (t.content in source and not t.content.isspace())
    )


def _translates(tokenizer: Any) -> bool:
    """Whether a tokenizer is of a translation model, by its language codes or its second tokenizer model (Marian)."""
    return hasattr(tokenizer, "src_lang") or hasattr(tokenizer, "spm_target")


def chosen_prompt(
    name: str,
    template: str | None,
    of_data: str | None,
    of_tokenizer: str | None,
    family: str,
    *,
    translates: bool = False,
) -> tuple[str, str | None]:
    """Name and source of the prompt: ``auto`` takes the data set's, else the tokenizer's chat template, else a text template.

    A model that translates would translate the words of a template, so its text template adds none.
    """
    if name == "auto":
        text = "source" if translates else {"seq2seq": "t5", "causal": "alpaca"}[family]
        name = of_data or ("chat" if of_tokenizer else text)
        template = prompt_config(name).template
    return name, of_tokenizer if name == "chat" else template
