"""Lines of Python that the code of several forms has."""

import json

from llmft.config.schema import TrainConfig

PROMPT_IDS = 'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]'


def messages(cfg: TrainConfig) -> str:
    """A question, with the run's system prompt."""
    system = f'{{"role": "system", "content": {json.dumps(cfg.data.system)}}}, ' if cfg.data.system else ""
    return f'messages = [{system}{{"role": "user", "content": "What is a llama?"}}]'


def folder(hub: str | None) -> str:
    """The folder of the files, for libraries that take no id of the Hub; the code must import ``snapshot_download`` for one."""
    return f"folder = snapshot_download({json.dumps(hub)})" if hub else 'folder = "."  # the folder of this file'
