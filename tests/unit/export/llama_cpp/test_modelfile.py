"""The Modelfile for Ollama: prompt template, system prompt, stop tokens and parameters are those of the run."""

from dataclasses import replace

from llmft.export.llama_cpp.modelfile import Modelfile
from llmft.export.llama_cpp.turn_shape import TurnShape

SHAPE = TurnShape("<sys>", "</sys>", "", " =>", "\n", " =>")
GREEDY = {
    "max_new_tokens": 20,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "eos_token_id": [2],
}
FILE = Modelfile("m-F32.gguf", None, SHAPE, "", "Be brief.", ["</s>", '<"end">'], GREEDY, 4096)


def test_a_run_that_answers_greedily():
    assert FILE.text() == (
        "# ollama create NAME --file Modelfile\n"
        "FROM ./m-F32.gguf\n"
        'TEMPLATE """{{- if .System }}{{ "<sys>" }}{{ .System }}{{ "</sys>" }}{{ else }}{{ end }}\n'
        "{{- range $i, $_ := .Messages }}\n"
        "{{- $last := eq (len (slice $.Messages $i)) 1 }}\n"
        '{{- if eq .Role "user" }}{{ .Content }}{{ if $last }}{{ " =>" }}{{ else }}{{ " =>" }}{{ end }}\n'
        r'{{- else if eq .Role "assistant" }}{{ .Content }}{{ if not $last }}{{ "\n" }}{{ end }}' + "\n"
        "{{- end }}\n"
        '{{- end }}"""\n'
        'SYSTEM """Be brief."""\n'
        'PARAMETER stop "</s>"\n'
        'PARAMETER stop """<"end">"""\n'
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1.0\n"
        "PARAMETER num_predict 20\n"
        "PARAMETER num_ctx 4096\n"
    )


def test_a_run_that_samples_names_every_value_that_ollama_has_another_default_for():
    settings = {**GREEDY, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.3}
    lines = replace(FILE, generation=settings).text().splitlines()
    assert lines[-9:] == [
        'PARAMETER stop """<"end">"""',
        "PARAMETER temperature 0.7",
        "PARAMETER top_k 50",
        "PARAMETER top_p 0.9",
        "PARAMETER min_p 0.0",
        "PARAMETER repeat_penalty 1.3",
        "PARAMETER repeat_last_n -1",
        "PARAMETER num_predict 20",
        "PARAMETER num_ctx 4096",
    ]


def test_what_has_no_place_is_named():
    text = replace(
        FILE,
        shape=None,
        reason="it writes the date",
        system='Say """',
        generation={**GREEDY, "num_beams": 4},
        adapter="a.gguf",
    ).text()
    assert "\nADAPTER ./a.gguf\n" in text
    assert "# no TEMPLATE: Ollama's syntax cannot express the trained prompt template (it writes the date)." in text
    assert 'TEMPLATE "' not in text
    assert "\n# no SYSTEM: " in text
    assert text.endswith("# not in Ollama: num_beams=4\n")
    assert "# The trained template strips white space" in replace(FILE, shape=replace(SHAPE, strips=True)).text()
