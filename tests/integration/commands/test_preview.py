"""``preview``: what is trained stands out, ids on request, an account of all rows, and no fault passes."""

import json

import pytest

from llmft.data.tokenization.causal import CausalCodec
from llmft.models.backbone import load
from tests.conftest import chat_row, write_rows

TINY = ("preview", "data.path=rows.jsonl", "prompt=plain", "data.split={val:0,test:0}")


@pytest.fixture
def rows(tmp_path):
    return write_rows(
        tmp_path / "rows.jsonl", chat_row("Say {x}\nin two lines", "One\nTwo </s>"), chat_row("\u001b[31mRed?", "No.")
    )


@pytest.mark.usefixtures("rows")
def test_what_is_trained_stands_in_brackets(llmft):
    code, out, err = llmft(*TINY, "model=tiny_llama")
    assert code == 0, err
    assert "Say {x}\nin two lines\n⟦One\nTwo </s></s>⟧\n" in out
    assert "�[31mRed?" in out  # nothing in a row steers the terminal
    assert "\u001b" not in out
    # "Say {x}\nin two lines\n" has 21 bytes; the answer's second "</s>" is one token
    assert "21 tokens of prompt, 13 of answer, 13 trained" in out
    assert "rows.jsonl: 2 rows read, 2 kept, 0 dropped; 17 supervised tokens" in out
    assert "1 rows: control tokens in their text stay text (</s> 1)" in out


@pytest.mark.usefixtures("rows")
def test_ids_on_request(llmft, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = llmft(*TINY, "model=tiny_t5", "preview.ids=true", "preview.rows=1")
    assert code == 0, err
    # ByteLevel sorts its alphabet behind <pad> and </s>: "!" has id 2, "S" 52, "O" 48
    for cell in ("52 S", "⟦48 O", "1 </s>⟧"):
        assert cell in out
    assert out.count("⟦") == 3  # text, ids, legend
    code, out, _ = llmft(*TINY, "model=tiny_t5", "preview.rows=1")
    assert "52 S" not in out


@pytest.mark.usefixtures("rows")
def test_the_account_is_the_last_line_of_the_json(llmft):
    code, out, err = llmft(*TINY, "model=tiny_llama", "format=json")
    assert code == 0, err
    *rows, account = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 2
    assert set(account) >= {
        "rows",
        "kept",
        "dropped",
        "truncated",
        "supervised_tokens",
        "bos_per_row",
        "merged_boundaries",
    }
    assert account["lost_characters"] == {"rows": 0, "characters": 0, "which": {}}
    assert account["control_tokens_in_text"] == {"rows": 1, "tokens": {"</s>": 1}}
    assert (account["without_stop_token"], account["repeated_bos"]) == (0, 0)


@pytest.mark.usefixtures("rows")
def test_rows_without_a_stop_token_are_shown_and_refused(llmft, monkeypatch):
    whole = CausalCodec._ids
    monkeypatch.setattr(CausalCodec, "_ids", lambda *args: (whole(*args)[0], whole(*args)[1][:-1], False))
    message = "2 rows do not train exactly one stop token, at the end of their answer (first: rows.jsonl:"
    code, out, err = llmft(*TINY, "model=tiny_llama", "data.cache=off")
    assert code == 2
    assert message in err
    assert "⟦No.⟧" in out
    monkeypatch.setattr(load, "load_model", None)
    code, _, err = llmft("model=tiny_llama", *TINY[1:], "data.cache=off", "output_dir=run")
    assert code == 2
    assert message in err
