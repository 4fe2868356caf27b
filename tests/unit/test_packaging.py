"""What a wheel and a source archive hold, built here; installing them is tests/integration/test_installed_wheel.py."""

import subprocess
import tarfile
import tomllib
import zipfile

import pytest

from tests.conftest import ROOT

build = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
# What somebody who unpacks the archive does not need: the settings of this repository.
NOT_IN_THE_ARCHIVE = {".ci", ".gitignore"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The names in the wheel, and those in the source archive without its top folder."""
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wheel, archive = build.build_wheel(str(folder)), build.build_sdist(str(folder))
    with tarfile.open(folder / archive) as opened:
        members = {name.partition("/")[2] for name in opened.getnames()}
    return set(zipfile.ZipFile(folder / wheel).namelist()), members


def below(name: str) -> set[str]:
    """The files of a folder of the checkout, without what Python compiled."""
    files = {file for file in (ROOT / name).rglob("*") if file.is_file()}
    return {str(file.relative_to(ROOT)) for file in files if not {"__pycache__", "llmft.egg-info"} & set(file.parts)}


def test_the_wheel_has_the_code_the_config_and_all_that_is_read_at_run_time(built):
    wheel, _ = built
    own = {name.removeprefix("src/") for name in below("src")} | {f"llmft/{name}" for name in below("conf")}
    assert {name for name in wheel if ".dist-info/" not in name} == own
    assert wheel > {
        "llmft/py.typed",
        "llmft/conf/train.yaml",
        "llmft/conf/.schema/train.json",
        "llmft/conf/experiment/academic_flan_t5_base.csv",
        "llmft/report/templates/run/verdict.html",
        "llmft/serving/page.html",
        "llmft/samples/support.jsonl",
        "llmft/evaluation/retention/general.jsonl",
        "hydra_plugins/llmft_optuna.py",
    }
    assert "hydra_plugins/__init__.py" not in wheel  # a namespace that it shares with other plugins of Hydra
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_the_source_archive_has_what_builds_documents_and_tests_it(built):
    _, archive = built
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no checkout")
    wanted = {name for name in tracked.stdout.splitlines() if name.partition("/")[0] not in NOT_IN_THE_ARCHIVE}
    assert sorted(wanted - archive) == []
    extra = {name for name in archive - wanted if not (ROOT / name).is_dir()}
    assert extra <= {"PKG-INFO", ".gitignore"} | below("src") | below("tests") | below("docs"), extra


def test_the_archive_names_each_of_its_parts():
    """A folder or file that is gone would be left out silently."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    assert [name for name in settings["include"] if not (ROOT / name).exists()] == []
