"""The pinned archive: another one is refused, only the converter is unpacked, and what is missing is said with the command."""

import hashlib
import io
import tarfile

import pytest

from llmft.export.llama_cpp import archive
from llmft.utils.errors import UserError

TOP = f"llama_cpp_python-{archive.VERSION}/vendor/llama.cpp"
WANTED = {"convert_hf_to_gguf.py", "conversion/base.py", "gguf-py/gguf/constants.py"}
OTHERS = (
    "../../evil.py",
    "conversion/../../evil.py",
    "conversion/sub/evil.py",
    "setup.py",
    "gguf-py/gguf/scripts/x.py",
)


def member(name, content=b"# code", **fields):
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.fixture
def make(tmp_path, monkeypatch):
    """An archive with these members, which takes the place of the pinned one."""
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))

    def build(*members):
        file = tmp_path / archive.NAME
        with tarfile.open(file, "w:gz") as out:
            for info, content in members:
                out.addfile(info, io.BytesIO(content))
        monkeypatch.setattr(archive, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
        return file

    return build


def test_only_the_converter_is_unpacked(make, tmp_path):
    file = make(*(member(name) for name in (*WANTED, *OTHERS)))
    folder = archive.converter_folder(str(file))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == WANTED
    assert not list(tmp_path.rglob("evil.py"))
    file.unlink()
    assert archive.converter_folder() == folder  # from the cache


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "x"},
        {"type": tarfile.DIRTYPE},
    ],
)
def test_a_needed_member_must_be_a_file(make, fields):
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py is not a file"):
        archive.converter_folder(str(make(member("convert_hf_to_gguf.py", **fields))))
    assert not (archive.cache_root() / archive.FOLDER).exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(make, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"conversion/base.py is not a file of the expected kind or size"):
        archive.converter_folder(str(make(member("conversion/a.py"), member("conversion/base.py"))))


def test_another_archive_is_refused(make, tmp_path):
    archive.converter_folder(str(make(member("convert_hf_to_gguf.py"))))
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"other")
    with pytest.raises(
        UserError, match=r"gguf_archive=.*other.tar.gz: has the SHA-256 d9298a10d1b0735837dc4bd85dac641b0f3cef27a"
    ):
        archive.converter_folder(str(other))  # although the cache has the converter
    with pytest.raises(UserError, match="there is no such file"):
        archive.converter_folder(str(tmp_path / "none.tar.gz"))


def test_without_the_archive_one_message_has_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path))
    with pytest.raises(UserError) as error:
        archive.converter_folder()
    assert "download=true" in str(error.value)
    assert "pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36" in str(error.value)
    assert "gguf_archive=llama_cpp_python-0.3.36.tar.gz" in str(error.value)
