"""``form=adapter``: the trained LoRA matrices, with the public name of their base model."""

import json
import shutil
from pathlib import Path

from llmft.export.base_model import published_id
from llmft.export.forms.source import Source, copy_rest


def write(source: Source, folder: Path) -> None:
    """Write the adapter; its config names the base by its Hub id, or not at all if the base was a local file."""
    shutil.copy(source.model / "adapter_model.safetensors", folder)
    config = json.loads((source.model / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": published_id(source.cfg), "revision": source.cfg.model.revision}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    copy_rest(source.model, folder)
