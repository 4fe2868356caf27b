"""Examples of each command, for its help page; every key in them is one of the command."""

EXAMPLES: dict[str, dict[str, str]] = {
    "train": {
        "llmft data.path=FILE": "LoRA on your rows",
        "llmft model=tiny_llama data.path=sample": "a try in seconds",
        "llmft model=qwen3_0_6b data.path=FILE optim.lr=2e-4": "",
        "llmft resume=latest": "go on after a stop",
        "llmft -m optim.lr=1e-4,1e-3 seed=1,2,3": "a sweep, 6 runs",
    },
    "preview": {
        "llmft preview data.path=FILE": "what is trained",
        "llmft preview data.path=FILE preview.ids=true": "token by token",
    },
    "estimate": {
        "llmft estimate model=qwen3_0_6b": "memory, steps",
        "llmft estimate data.path=FILE estimate.probe=true": "and the time",
    },
    "prove": {"llmft prove model=tiny_llama data.path=sample": ""},
    "answer": {
        'llmft answer run=latest question="What is LoRA?"': "",
        "llmft answer run=latest input=FILE output=a.jsonl": "resumable",
        'llmft answer model=smollm2_135m question="Hello"': "not fine-tuned",
    },
    "chat": {"llmft chat run=latest": ""},
    "serve": {"llmft serve run=latest serve.port=8000": ""},
    "evaluate": {
        "llmft evaluate run=latest": "tuned and base",
        "llmft evaluate run=latest data.path=FILE": "other rows",
    },
    "report": {"llmft report run=latest": "", "llmft report runs=outputs": "a leaderboard of all runs"},
    "replay": {"llmft replay run=latest": ""},
    "export": {
        "llmft export run=latest to=my-model": "for transformers",
        "llmft export run=latest to=fast form=ctranslate2": "a fast runtime",
    },
    "restore": {"llmft restore archive=my-model.zip to=my-model": ""},
    "schema": {"llmft schema to=schemas": ""},
}
