"""Special tokens around sources and targets, and languages, with tokenizers of the transformers classes."""

from types import SimpleNamespace

import pytest

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.cache import codec_key, key_of
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.frames import source_frame, target_frame
from llmft.models.backbone.languages import set_languages
from llmft.utils.errors import UserError
from tests.support.twins import SEQ2SEQ

# before and after a source, first label, start of the decoder
FRAMES = {
    "bart": (["<s>"], ["</s>"], "<s>", None),
    "pegasus": ([], ["</s>"], None, None),
    "marian": ([], ["</s>"], None, None),
    "byt5": ([], ["</s>"], None, None),
    "nllb": (["eng_Latn"], ["</s>"], "fra_Latn", None),
    "m2m100": (["__en__"], ["</s>"], "__fr__", None),
    "mbart50": (["en_XX"], ["</s>"], "ro_RO", None),
    "mbart": ([], ["</s>", "en_XX"], None, "ro_RO"),
    "t5gemma": (["<bos>"], [], None, None),
}


LANGUAGES = {"nllb": "eng_Latn", "m2m100": "en", "mbart": "en_XX"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    def build(name, source="", target=""):
        made = SEQ2SEQ[name].tokenizer(tmp_path_factory.mktemp(name))
        codes = (source, target) if source or target else SEQ2SEQ[name].languages or (None, None)
        given = {"source_language": codes[0] or None, "target_language": codes[1] or None}
        set_languages(made, SimpleNamespace(select=given.get))  # pyright: ignore[reportArgumentType]
        return made

    return build


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name, tokenizer):
    made, (before, after, forced, start) = tokenizer(name), FRAMES[name]
    source, target = source_frame(made), target_frame(made)
    assert made.convert_ids_to_tokens([*source.before, *source.after]) == [*before, *after]
    assert made.convert_ids_to_tokens(list(target.forced)) == ([forced] if forced else [])
    assert target.start == (start and made.convert_tokens_to_ids(start))


@pytest.mark.parametrize("name", FRAMES)
def test_ids_are_those_of_the_tokenizer(name, tokenizer):
    """A prompt and labels without a typed control token, as the tokenizer itself makes them of source and target."""
    made = tokenizer(name)
    codec, _ = codec_for("seq2seq", made, prompt_config("source"), None, "answer")
    row = codec.encode(codec.template.render((Turn("user", "Hello, you."),)), "Ja, ich.")
    assert row.input_ids == made("Hello, you.")["input_ids"]
    expected = made(text_target="Ja, ich.")["input_ids"]
    stop = [made.eos_token_id]
    assert row.labels == (
        expected[:-1] if name == "mbart" else [*expected[1:], *stop] if name == "t5gemma" else expected
    )


@pytest.mark.parametrize(
    ("name", "source", "target", "said"),
    [
        (
            "nllb",
            "eng_Latn",
            None,
            "model.target_language: this model translates, and needs the codes of both languages",
        ),
        ("nllb", "english", "fra_Latn", "model.source_language=english: this model has no such language"),
        ("m2m100", "en", "fra", "model.target_language=fra: this model has no such language. Did you mean fr?"),
        ("marian", "eng", "fra", "model.source_language=eng: a Marian model finds its source language by itself"),
        ("marian", None, "fr", "model.target_language=fr: this model has no such language"),
        ("bart", "en", "fr", "this tokenizer has no language codes; leave it at null"),
    ],
)
def test_wrong_languages_are_refused(name, source, target, said, tokenizer):
    with pytest.raises(UserError) as error:
        tokenizer(name, source or "", target or "")
    assert said in str(error.value)


def test_a_multilingual_marian_gets_its_code_in_the_source(tokenizer):
    made = tokenizer("marian", "", "fra")
    codec, name = codec_for("seq2seq", made, prompt_config("auto"), None, "answer")
    assert name == "source"  # a model that translates
    ids = codec.prompt_ids(codec.template.render((Turn("user", "Hello"),)))
    assert ids == made(">>fra<< Hello")["input_ids"]
    assert made.convert_ids_to_tokens(ids[0]) == ">>fra<<"


@pytest.mark.parametrize(
    ("name", "codes"), [("nllb", ("fra_Latn", "eng_Latn")), ("m2m100", ("fr", "de")), ("mbart", ("ro_RO", "de_DE"))]
)
def test_tokenized_rows_of_another_target_language_are_not_used(name, codes, tokenizer):
    """The source is the same, and so are prompt and tokenizer."""
    keys = []
    for target in codes:
        made = tokenizer(name, LANGUAGES[name], target)
        codec, _ = codec_for("seq2seq", made, prompt_config("source"), None, "answer")
        keys.append(key_of(codec=codec_key(codec)))
    assert keys[0] != keys[1]
