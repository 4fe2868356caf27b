"""Ids and labels of both codecs, written by hand, on tokenizers whose ids are one per byte."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.codec import IGNORED, Seq2SeqCodec
from llmft.data.tokenization.template import Prompt, PromptTemplate
from llmft.utils.errors import UserError

N = IGNORED
END = "<|endoftext|>"


def byte_ids(tokenizer, text):
    return [tokenizer.convert_tokens_to_ids(piece) for piece in tokenizer.tokenize(text)]


@pytest.fixture
def causal(gpt2_tokenizer):
    return codec_for("causal", gpt2_tokenizer, prompt_config("plain"), None, "answer")[0]


@pytest.fixture
def seq2seq(t5_tokenizer):
    return codec_for("seq2seq", t5_tokenizer, prompt_config("plain"), None, "answer")[0]


def test_causal_masks_the_prompt_and_trains_answer_and_stop(causal):
    # ByteLevel sorts its alphabet: "!" is the first byte (id 1), so "A" is 33, "B" 34, "a" 65, "b" 66; newline is 199
    row = causal.encode(causal.template.render((Turn("user", "AB"),)), "ab")
    assert row.input_ids == [33, 34, 199, 65, 66, 0]
    assert row.labels == [N, N, N, 65, 66, 0]
    assert (row.prompt_length, row.answer_length, row.supervised) == (3, 3, 3)
    assert (row.cut, row.merged, row.lost, row.joined, row.size) == (False, False, "", True, (6,))


def test_seq2seq_puts_the_answer_and_its_stop_into_the_labels(seq2seq):
    row = seq2seq.encode(seq2seq.template.render((Turn("user", "AB"),)), "ab")
    assert row.input_ids == [34, 35, 200, 1]
    assert row.labels == [66, 67, 1]
    assert (row.prompt_length, row.answer_length, row.supervised, row.joined, row.size) == (4, 3, 3, False, (4, 3))


def test_a_chat_answer_ends_with_the_templates_own_stop(llama_tokenizer):
    codec, _ = codec_for("causal", llama_tokenizer, prompt_config("chat"), None, "answer")
    row = codec.encode(codec.template.render((Turn("user", "Hi"),)), "Yo")
    text = byte_ids(llama_tokenizer, "<|user|>\nHi")
    assert row.input_ids == [*text, 2, *byte_ids(llama_tokenizer, "\n<|assistant|>\nYo"), 2]
    assert row.labels == [N] * row.prompt_length + [*byte_ids(llama_tokenizer, "Yo"), 2]
    assert row.input_ids.count(llama_tokenizer.bos_token_id) == 0


def test_train_on_all_is_causal_only(gpt2_tokenizer, t5_tokenizer):
    codec, _ = codec_for("causal", gpt2_tokenizer, prompt_config("plain"), None, "all")
    row = codec.encode(codec.template.render((Turn("user", "A"),)), "b")
    assert row.labels == row.input_ids == [33, 199, 66, 0]
    assert row.supervised == 3  # nothing predicts the first
    with pytest.raises(UserError, match=r"data.train_on=all"):
        codec_for("seq2seq", t5_tokenizer, prompt_config("plain"), None, "all")


@pytest.mark.parametrize("answer", ["a <|endoftext|> b", "<|endoftext|>", "</s><s><pad>"])
def test_control_tokens_in_prompt_and_answer_stay_text(answer, gpt2_tokenizer, t5_tokenizer, llama_tokenizer):
    for family, tokenizer, name in [
        ("causal", gpt2_tokenizer, "alpaca"),
        ("seq2seq", t5_tokenizer, "t5"),
        ("causal", llama_tokenizer, "chat"),
    ]:
        codec, _ = codec_for(family, tokenizer, prompt_config(name), None, "answer")
        prompt = codec.template.render((Turn("user", answer),))
        row = codec.encode(prompt, answer)
        assert [label for label in row.labels if label != N].count(codec.stop_id) == 1
        assert row.labels[-1] == codec.stop_id
        assert codec.decode([label for label in row.labels if label != N]) == answer
        assert row.input_ids[: row.prompt_length] == codec.prompt_ids(prompt)


def test_a_cut_answer_has_no_stop_token(causal, seq2seq):
    for codec in (causal, seq2seq):
        prompt = codec.template.render((Turn("user", "A"),))
        whole, cut, just = (codec.encode(prompt, "abc", limit) for limit in (None, 3, 4))
        assert cut.cut
        assert not just.cut
        assert just.labels == whole.labels
        assert [label for label in cut.labels if label != N] == [label for label in whole.labels if label != N][:3]
        assert codec.stop_id not in cut.labels[-1:]
        assert (cut.answer_length, cut.supervised) == (4, 3)


def bpe(merges):
    """Bytes and a few merges, as GPT-2's tokenizer has them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([END, *alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, clean_up_tokenization_spaces=False
    )


def test_tokens_that_merge_across_the_boundary_are_kept_apart_and_counted():
    tokenizer = bpe([("Ġ", "Y"), ("a", "b")])
    codec = CausalCodec(tokenizer, PromptTemplate("{{ messages[0].content }}", (END,)))
    safe = codec.encode(Prompt(("q:",)), " Yab")
    assert not safe.merged
    assert tokenizer.convert_ids_to_tokens(safe.input_ids) == ["q", ":", "ĠY", "ab", END]
    unsafe = codec.encode(Prompt(("q: ",)), "Yab")  # together they would be "q", ":", "ĠY", ...
    assert unsafe.merged
    assert tokenizer.convert_ids_to_tokens(unsafe.input_ids) == ["q", ":", "Ġ", "Y", "ab", END]
    assert unsafe.labels[:3] == [N, N, N]
    assert unsafe.input_ids[:3] == codec.prompt_ids(Prompt(("q: ",)))


def test_the_lead_of_a_template_is_trained_and_taken_off_again(gpt2_tokenizer):
    codec, _ = codec_for("causal", gpt2_tokenizer, prompt_config("inst"), None, "answer")
    row = codec.encode(codec.template.render((Turn("user", "Q"),)), "A")
    assert gpt2_tokenizer.decode(row.input_ids) == f"[INST] Q [/INST] A{END}"
    assert codec.decode(row.input_ids[row.prompt_length : -1]) == "A"


def test_raw_text_gets_one_bos_where_the_tokenizer_adds_one(llama_tokenizer):
    from tokenizers import processors

    raw = Tokenizer.from_str(llama_tokenizer._tokenizer.to_str())
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    codec, _ = codec_for("causal", tokenizer, prompt_config("alpaca"), None, "answer")
    row = codec.encode(codec.template.render((Turn("user", "Say <s>"),)), "<s>")
    assert row.input_ids[0] == 1
    assert row.input_ids.count(1) == 1


def test_characters_that_do_not_come_back_are_counted(t5_tokenizer):
    from tokenizers import Regex, normalizers

    raw = Tokenizer.from_str(t5_tokenizer._tokenizer.to_str())
    raw.normalizer = normalizers.Replace(Regex(r"[\n{}]"), "")
    lossy = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    codec = Seq2SeqCodec(lossy, PromptTemplate("{{ messages[0].content }}", ("<pad>", "</s>")))
    assert codec.encode(Prompt(("a{b}",)), "c\nd\n").lost == "{}\n\n"
    assert codec.encode(Prompt(("ab",)), "cd").lost == ""
