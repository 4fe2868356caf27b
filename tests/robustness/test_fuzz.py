"""Every parser of ours under generated input: a value, or its own one error; never a traceback, never something run.

Few examples here, the same ones each time; many and others with ``make fuzz`` (LLMFT_FUZZ=N). What was found stands in
tests/corpus.
"""

import io
import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from llmft.config.compose import composition_faults
from llmft.config.override_text import quoted
from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from llmft.data.academic import Academic
from llmft.data.preprocessing.arrow_store import example_batch, example_of
from llmft.data.preprocessing.unread_fields import TrackedRow
from llmft.data.records import RowError
from llmft.evaluation.judge.parse_reply import InvalidReply, parse_choice, parse_score
from llmft.export import checksums
from llmft.generation.answer_file import AnswerFile
from llmft.generation.questions import to_question
from llmft.metrics import predictions
from llmft.models.backbone import untrusted
from llmft.report import leaderboard
from llmft.runs import checkpoint_io
from llmft.runs.open import open_run
from llmft.serving.schema import ChatRequest, CompletionRequest
from llmft.utils.errors import UserError
from llmft.utils.text import printable
from tests.robustness.corpus import FILES
from tests.robustness.corpus.faults import FAULTS, RUN
from tests.unit.data.sources.test_malformed_files import examples_of

MANY = int(os.environ.get("LLMFT_FUZZ", "200"))
texts = st.text(st.characters(exclude_categories=[]), max_size=12) | st.sampled_from(["${seed}", "${oc.env:HOME}", "\0", "../..", "=1", "[", "{", "'", "\\", "null", "nan", "1e999", "\ud800"])  # fmt: skip
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6)  # fmt: skip


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """Whole bytes with a few changed, cut out, put in, or cut off."""

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        made = bytearray(whole)
        for at, length, new in edits:
            at %= len(made) + 1
            made[at : at + length] = new
        return bytes(made)

    edit = st.tuples(st.integers(0, 1 << 20), st.integers(0, 9) | st.just(1 << 30), st.binary(max_size=5))
    return st.lists(edit, max_size=5).map(change)


def one_clear_message(error: UserError) -> None:
    text = str(error)
    text.encode()
    assert text
    assert "Traceback" not in text
    assert printable(text) == text


def rows(content: bytes, folder: Path) -> None:
    name = next(name for name in FILES if content.startswith(name.encode() + b"\n"))
    file = folder / name
    file.write_bytes(content.partition(b"\n")[2])
    try:
        found, account = examples_of(file)
    except UserError as error:
        one_clear_message(error)
    else:
        assert account.read == len(found) + account.dropped.total()


def chat_row(changes: list[tuple[int, str, Any]], _: Path) -> None:
    """A conversation with a tool, some of its keys replaced: an example that is stored whole, or its one error."""
    row = json.loads(json.dumps(TOOL_ROW))
    for at, key, value in changes:
        turn = row["messages"][at : at + 1] if isinstance(row["messages"], list) else []
        (turn[0] if turn and isinstance(turn[0], dict) else row)[key] = value
    for read in (Academic.to_example, lambda row: to_question(row, "f:1")):
        try:
            example = read(TrackedRow(row))
        except RowError as error:
            str(error).encode()
            continue
        (back,) = example_batch([example]).to_pylist()
        assert example_of(back) == example
        for turn in (*example.context, example.reply):
            turn.message()


def judge_reply(text: str, _: Path) -> None:
    for parse in (parse_score, parse_choice):
        try:
            found = parse(text)
        except InvalidReply:
            continue
        assert found in (*range(101), "A", "B", "TIE")


def body(content: bytes, _: Path) -> None:
    for kind in (ChatRequest, CompletionRequest):
        try:
            kind.model_validate_json(content)
        except ValidationError as error:
            error.errors(include_url=False)


def command_line(override: str, _: Path) -> None:
    given_ = quoted(override, multirun=False)
    for fault in composition_faults("preview", [given_]):
        assert fault.partition("\n")[0]


def config(node: Any, folder: Path) -> None:
    """Of a run of somebody else."""
    file = folder / "config.yaml"
    (folder / "model").mkdir(exist_ok=True)
    file.write_text(node if isinstance(node, str) else yaml.safe_dump(node, allow_unicode=False), errors="replace")
    try:
        open_run(str(folder))
    except UserError as error:
        one_clear_message(error)


def checkpoint(content: bytes, folder: Path) -> None:
    (folder / "last.ckpt").write_bytes(content)
    try:
        found = checkpoint_io.load(folder / "last.ckpt")
    except UserError as error:
        one_clear_message(error)
    else:
        repr(found)


def adapter(content: bytes, folder: Path) -> None:
    for name in (
        "adapter_config.json",
        "config.json",
        "tokenizer_config.json",
        untrusted.INDEX,
        "adapter_model.safetensors",
    ):
        (folder / name).write_bytes(content)
    for read in (untrusted.adapter_config, untrusted.adapter_weights, lambda f: untrusted.check_model(f, code=False)):
        try:
            read(folder)
        except UserError as error:
            one_clear_message(error)


def sums(content: bytes, _: Path) -> None:
    try:
        found = checksums.parse(content.decode("utf-8", "replace").splitlines())
    except ValueError:
        return
    assert all(len(value) == 64 for value in found.values())


def answers(content: bytes, folder: Path) -> None:
    for ending in (".jsonl", ".csv"):
        file = folder / f"answers{ending}"
        file.write_bytes(content)
        try:
            AnswerFile(str(file), ["id", "question", "answer", "key"]).finished(["0" * 16])
        except UserError as error:
            one_clear_message(error)


def stored(content: bytes, folder: Path) -> None:
    for ending in (".jsonl", ".json"):
        (folder / f"stored{ending}").write_bytes(content)
        try:
            predictions.load(str(folder / f"stored{ending}"))
        except UserError as error:
            one_clear_message(error)


def record(node: Any, folder: Path) -> None:
    """``run.json`` of a run of somebody else, in a leaderboard."""
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "config.yaml").write_text("model: {name: m}\ndata: {name: d}\npeft: {name: p}\nseed: 1\n")
    (folder / "run" / "run.json").write_text(node if isinstance(node, str) else json.dumps(node), errors="replace")
    try:
        leaderboard.write_leaderboard(folder)
    except UserError as error:
        one_clear_message(error)


def saved() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(2)}, "global_step": 3}, stream)
    return stream.getvalue()


CHAT = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0.5, "stop": ["a"]}
).encode()
LORA = json.dumps(
    {"peft_type": "LORA", "r": 4, "target_modules": ["q"], "lora_alpha": 8, "weight_map": {"a": "b"}}
).encode()
KEYS = (
    "model",
    "data",
    "data.path",
    "data.limit",
    "data.split",
    "prompt",
    "model.path",
    "+x",
    "++data",
    "~data",
    "data@x",
    "preview.rows",
)
RECORD = {"status": "finished", "objective": 1.0, "seed": 1, "metrics": {"after": {"val/loss": 1.0}}, "data": {}}
MESSAGES = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "content": "R"},
    {"role": "assistant", "content": "A"},
]
TOOL_ROW = {"messages": MESSAGES, "tools": [{"name": "f"}]}
CHAT_KEYS = (
    "role",
    "from",
    "content",
    "value",
    "tool_calls",
    "function_call",
    "reasoning",
    "thinking",
    "weight",
    "train",
    "name",
    "tool_call_id",
    "messages",
    "tools",
    "system",
    "label",
)
CALLS = st.fixed_dictionaries({"name": texts, "arguments": values | values.map(json.dumps)}) | values
PARSERS: dict[str, tuple[Any, Any]] = {
    "rows": (rows, st.sampled_from(sorted(n for n in FILES if "ten_m" not in n)).flatmap(lambda n: mutated(FILES[n][0][:5000]).map(lambda c: n.encode() + b"\n" + c))),
    "chat_row": (chat_row, st.lists(st.tuples(st.integers(0, 4), st.sampled_from(CHAT_KEYS), values | st.lists(CALLS, max_size=2) | values.map(json.dumps)), max_size=3)),
    "judge_reply": (judge_reply, st.lists(st.sampled_from(["{", "}", '"score"', ":", "Score: ", "7", "100", "-1", "\n", "```json\n", "\n```", "A", "TIE", "[" * 2000, "9" * 5000]) | texts, max_size=8).map("".join)),
    "body": (body, mutated(CHAT) | values.map(lambda v: json.dumps({**json.loads(CHAT), "messages": v, "stop": v, "seed": v}).encode())),
    "command_line": (command_line, st.tuples(st.sampled_from(KEYS), texts | st.text(string.punctuation, max_size=8)).map("=".join)),
    "config": (config, st.tuples(st.sampled_from(["model", "data", "peft", "generation", "prompt", "callbacks", "x"]), values).map(lambda p: {**RUN, p[0]: p[1]}) | texts | values),
    "checkpoint": (checkpoint, mutated(saved())),
    "adapter": (adapter, mutated(LORA) | values.map(lambda v: json.dumps({**json.loads(LORA), "r": v, "target_modules": v}).encode())),
    "sums": (sums, mutated(b"0" * 64 + b"  model\n" + b"1" * 64 + b"  a/b\n")),
    "answers": (answers, mutated(b'{"id": "1", "question": "q", "answer": "a", "key": "0000000000000000"}\n')),
    "stored": (stored, mutated(b'{"id": "1", "reference": "q", "answer": "a", "nats": 1.0, "supervised": 2}\n')),
    "record": (record, st.tuples(st.sampled_from(sorted(RECORD)), values).map(lambda p: {**RECORD, p[0]: p[1]}) | values),
}  # fmt: skip


@pytest.mark.parametrize("examples", [8, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PARSERS)
def test_whatever_comes_is_a_value_or_one_clear_error(name, examples, tmp_path):
    parse, inputs = PARSERS[name]
    every: Any = list(HealthCheck)

    @settings(max_examples=examples, suppress_health_check=every, phases=[Phase.generate, Phase.shrink], database=None)
    @given(inputs)
    def ask(given_: Any) -> None:
        parse(given_, tmp_path)

    ask()


@pytest.mark.parametrize(("name", "given_"), FAULTS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(FAULTS)])
def test_what_was_found_once_is_not_found_again(name, given_, tmp_path):
    PARSERS[name][0](given_, tmp_path)


def test_a_config_that_would_grow_without_end_is_refused(tmp_path):
    """Nine levels of nine aliases each are a billion values in 300 bytes."""
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text("\n".join(levels))
    with pytest.raises(UserError, match=r"config\.yaml cannot be used"):
        open_run(str(tmp_path))


def test_rules_about_pairs_are_not_asked_of_what_is_no_config(load):
    cfg = load("model=tiny_gpt2")
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks.x = [{"a": 1}]
    with pytest.raises(UserError, match=r"callbacks\.x=\[\{'a': 1\}\]: must be null or a mapping with _target_"):
        check(cfg, TrainConfig)
