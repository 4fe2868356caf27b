"""The referee shares no code with the training."""

import ast
from pathlib import Path

import llmft.referee


def test_the_referee_imports_nothing_of_llmft_but_itself():
    folder = Path(llmft.referee.__file__).parent
    names = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    assert {name for name in names if name.startswith("llmft") and not name.startswith("llmft.referee")} == set()
    assert not {name.partition(".")[0] for name in names} & {"lightning", "hydra", "omegaconf"}
