"""The scripts in ``docs/`` that generate pages, as modules."""

import importlib.util
from typing import Any

from tests.conftest import ROOT


def docs_script(name: str) -> Any:
    """The module ``docs/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
