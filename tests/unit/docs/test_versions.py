"""Each file of constraints pins every direct dependency within the range of pyproject.toml; docs/versions.md names what was tried."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = ("constraints.txt", "constraints-lowest.txt", "constraints-newest.txt")
PAGE = (ROOT / "docs" / "versions.md").read_text()


def pins(name) -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / name).read_text().splitlines() if "==" in line and line[0] != "#"]
    return {str(canonicalize_name(package)): version.partition(" ")[0] for package, version in lines}


def required(extra=None):
    """The direct dependencies, with those of an extra and of the extras that it names."""
    for text in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == "llmft":
            for inner in requirement.extras:
                yield from required(inner)
        else:
            yield requirement


@pytest.mark.parametrize("name", FILES)
def test_every_direct_dependency_is_pinned_within_its_range(name):
    found = pins(name)
    wrong = {}
    for requirement in [*required(), *required("dev")]:
        pinned = found.get(canonicalize_name(requirement.name))
        if pinned is None or pinned not in requirement.specifier:
            wrong[str(requirement)] = pinned
    assert wrong == {}
    assert found["torch"] == "2.13.0"


def test_the_lowest_versions_are_the_lower_bounds():
    found, others = pins("constraints-lowest.txt"), {}
    for requirement in [*required(), *required("dev")]:
        bound = next(s.version for s in requirement.specifier if s.operator in (">=", "=="))
        pinned = found[canonicalize_name(requirement.name)]
        if Version(pinned) != Version(bound):
            others[requirement.name] = pinned
    # of torch one CPU build could be had; the first release of tokenizers 0.23 is 0.23.1
    assert others == {"torch": "2.13.0", "tokenizers": "0.23.1"}


def test_the_page_names_the_versions_and_the_pythons():
    assert f"transformers {pins('constraints-newest.txt')['transformers']}" in PAGE
    assert f"transformers {pins('constraints-compat.txt')['transformers']}" in PAGE
    listed = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)}
    assert listed == {"3.11", "3.12", "3.13"}
    assert all(f"| {version} |" in PAGE for version in (*listed, "3.14"))
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
