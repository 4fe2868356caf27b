"""Pack the wheels of some requirements for a machine with a GPU, Python and torch, and without a network.

    python benchmarks/gpu_wheels.py .wheels [--python 3.12] [--without pyarrow pandas] [--cuda 130] [--constraint FILE] [--requirement FILE]

Default requirements: llmft's, its peer TRL, Liger kernels, and what tests/gpu import. pip chooses the versions, as on the machine itself,
within ``--constraint``. torch and what it brings (``LEFT``, NVIDIA's) stay away, and so do packages of ``--without``, which the machine has.
``--check`` says instead which requirements of llmft the Python that runs this does not meet.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("antlr4-python3-runtime", "rouge-score")  # published as sources alone
BESIDE = ("trl", "liger-kernel>=0.8,<0.9", "pytest", "hypothesis")
LEFT = ("torch", "torchvision", "torchaudio", "triton")  # and NVIDIA's
# pip takes a wheel for exactly one of these
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in range(17, 36)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]


def pip(*arguments: str) -> None:
    if code := subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=False).returncode:
        raise SystemExit(code)  # pip has said why


def needs() -> list[str]:
    """The requirements of llmft, without its extras."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def resolved(requirements: Sequence[str], options: Sequence[str]) -> list[str]:
    """What pip would install: ``name==version`` of each package; nothing large is downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        # pip takes another machine's Python and platform only with a target
        where = ["--target", folder, "--report", str(report)]
        pip("install", "--dry-run", "--ignore-installed", *where, *options, *requirements)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [f"{one['metadata']['name']}=={one['metadata']['version']}" for one in found]


def carried(pins: Sequence[str], without: Sequence[str]) -> list[str]:
    """The pins that travel: without torch's, and without what the machine has."""
    names = {canonicalize_name(name) for name in (*without, *SOURCES, *LEFT)}
    kept = [(pin, canonicalize_name(pin.partition("==")[0])) for pin in pins]
    return sorted(pin for pin, name in kept if name not in names and not name.startswith(("nvidia-", "cuda-")))


def of_one_cuda(wheel: Path, version: str) -> None:
    """Keep one CUDA version's library of a bitsandbytes wheel, which has one for each: 41 MiB become 3."""
    smaller = wheel.with_suffix(".smaller")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.infolist():
            if not one.filename.endswith(".so") or one.filename.endswith((f"_cuda{version}.so", "_cpu.so")):
                new.writestr(one, old.read(one.filename))
    smaller.replace(wheel)


def pack(folder: Path, given: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pinned = ["--constraint", str(given.constraint)] if given.constraint else []
    wanted = ["--requirement", str(given.requirement)] if given.requirement else [*needs(), *BESIDE]
    if not given.requirement:
        pip("wheel", "--no-deps", "--wheel-dir", str(folder), *pinned, *SOURCES)
    target = [
        "--only-binary=:all:",
        "--python-version",
        given.python,
        "--implementation",
        "cp",
        "--find-links",
        str(folder),
    ]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    # pip reads markers (python_version < ...) with the Python that it runs on: best the machine's
    pins = resolved(wanted, [*pinned, *target])
    pip("download", "--no-deps", "--dest", str(folder), *target, *carried(pins, given.without))
    for wheel in folder.glob("bitsandbytes-*.whl") if given.cuda else ():
        of_one_cuda(wheel, given.cuda)
    wheels = sorted(folder.glob("*.whl"), key=lambda one: -one.stat().st_size)
    largest = ", ".join(f"{one.name.partition('-')[0]} {one.stat().st_size / 2**20:.0f}" for one in wheels[:5])
    print(f"{folder}: {len(wheels)} wheels, {sum(one.stat().st_size for one in wheels) / 2**20:.0f} MiB ({largest})")


def unmet(requirements: Sequence[str]) -> list[str]:
    """Requirements that this Python does not meet, with what it has."""
    found = []
    for needed in map(Requirement, requirements):
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is None or not needed.specifier.contains(version, prereleases=True):
            found.append(f"{needed}, found {version or 'none'}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the wheels' folder")
    parser.add_argument("--python", default="3.12", help="the version of that machine's Python (3.12)")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="packages that it has")
    parser.add_argument("--cuda", metavar="130", help="its CUDA version: bitsandbytes' other ones are left out")
    parser.add_argument("--constraint", type=Path, metavar="FILE")
    parser.add_argument("--requirement", type=Path, metavar="FILE", help="pack what this file names instead")
    parser.add_argument("--check", action="store_true", help="say what this Python lacks")
    given = parser.parse_args()
    if given.check:
        missing = unmet(needs())
        print("\n".join(f"llmft needs {one}" for one in missing) or "every requirement of llmft is met")
        return bool(missing)
    if not given.folder:
        parser.error("name a folder")
    pack(given.folder, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
