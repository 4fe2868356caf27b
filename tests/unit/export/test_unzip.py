"""Archives: what was packed comes back byte for byte; whatever else an archive may be, it is refused and leaves nothing."""

import hashlib
import io
import stat
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.export import checksums
from llmft.export.unzip import ArchiveLimits, restore
from llmft.export.zip import pack
from llmft.utils.errors import UserError

CAPS = ArchiveLimits(files=10, size=100_000, ratio=100)
FILES = {"README.md": b"card", "model.safetensors": bytes(range(256)) * 20, "more/tokenizer.json": b"{}"}


@pytest.fixture
def packed(tmp_path):
    folder = tmp_path / "made"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    checksums.write(folder)
    pack(folder, tmp_path / "a.zip")
    return tmp_path / "a.zip"


def zipped(file, *members, sums=True, compression=zipfile.ZIP_STORED):
    """An archive of (name or ZipInfo, data), with honest checksums."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
        if sums:
            names = [(getattr(name, "filename", name), data) for name, data in members]
            archive.writestr(
                "SHA256SUMS", "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in names)
            )
    return file


def refused(archive, to, caps=CAPS):
    before = sorted(to.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        restore(archive, "a.zip", to, caps)
    assert sorted(to.parent.rglob("*")) == before  # nothing of it is left, there or above
    return str(error.value)


def test_what_was_packed_comes_back(packed, tmp_path):
    names = restore(packed, "a.zip", tmp_path / "back", CAPS)
    assert names == sorted([*FILES, "SHA256SUMS"]) == checksums.list_files(tmp_path / "back")
    assert all((tmp_path / "back" / name).read_bytes() == data for name, data in FILES.items())
    pack(tmp_path / "back", tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/out.txt", "a/../../out.txt", "a/./b", "a//b", "..", ".", "C:/x", "a\\..\\..\\x", "x\n", "a/ /b", "n" * 256, "d/" * 600 + "x", "\x1b[2J", "tab\t", "a:b", "\u202etxt"],
)  # fmt: skip
def test_a_name_that_is_no_plain_path_is_refused(name, tmp_path):
    assert "is not a plain relative path" in refused(zipped(tmp_path / "a.zip", (name, b"x")), tmp_path / "to")


def test_a_nul_in_a_name_is_refused(tmp_path):
    file = zipped(tmp_path / "a.zip", ("axb", b"x"))
    file.write_bytes(file.read_bytes().replace(b"axb", b"a\0b"))
    refused(file, tmp_path / "to")


@pytest.mark.parametrize(
    ("mode", "message"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFCHR, "is a device or pipe"), (stat.S_IFIFO, "is a device or pipe"), (stat.S_IFSOCK, "is a device")],
)  # fmt: skip
def test_links_and_devices_are_refused(mode, message, tmp_path):
    info = zipfile.ZipInfo("evil")
    info.external_attr = (mode | 0o777) << 16
    assert message in refused(zipped(tmp_path / "a.zip", (info, b"/etc/passwd")), tmp_path / "to")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a", b"x"), ("A", b"y")], "'A': occurs twice"),
        ([("e\u0301", b"x"), ("\u00e9", b"y")], "occurs twice"),
        ([("a", b"x"), ("a/b", b"y")], "'a/b': is inside a file"),
        ([(f"f{number}", b"x") for number in range(10)], "holds 11 files; restore.max_files is 10"),
        ([("big", b"x" * 100_001)], "restore.max_size is 100,000"),
    ],
)
def test_clashes_and_caps(members, message, tmp_path):
    assert message in refused(zipped(tmp_path / "a.zip", *members), tmp_path / "to")


def test_a_bomb_is_refused(tmp_path):
    bomb = zipped(tmp_path / "a.zip", ("zeros", bytes(90_000)), compression=zipfile.ZIP_DEFLATED)
    assert "times its" in refused(bomb, tmp_path / "to", CAPS._replace(ratio=20))


def test_a_size_that_lies_is_seen(tmp_path):
    """The directory says 10 bytes, 5,000 are packed."""
    file = zipped(tmp_path / "a.zip", ("zeros", bytes(5000)), compression=zipfile.ZIP_DEFLATED)
    data = file.read_bytes()
    file.write_bytes(data.replace(struct.pack("<L", 5000), struct.pack("<L", 10)))
    refused(file, tmp_path / "to")


def test_a_damaged_file_is_refused(packed, tmp_path):
    data = packed.read_bytes()
    packed.write_bytes(data.replace(b"card", b"cord"))
    assert "Bad CRC-32" in refused(packed, tmp_path / "to")


def test_a_changed_file_with_a_right_crc_is_refused(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("first", b"1")
        archive.writestr("model", b"other weights")
        archive.writestr(
            "SHA256SUMS",
            "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in (("first", b"1"), ("model", b"weights"))),
        )
    assert "'model' differs from its checksum" in refused(file, tmp_path / "to")


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (None, "has no SHA256SUMS"),
        (b"", "'x' is only in one of"),
        (b"0" * 64 + b"  y\n", "is only in one of"),
        (b"nonsense", "SHA256SUMS:1: must be a SHA-256"),
        (b"\xff", "codec can't decode"),
        ((b"0" * 64 + b"  x\n") * 2, "SHA256SUMS:2: must be"),
    ],
)
def test_checksums_must_be_there_and_whole(sums, message, tmp_path):
    members = [("x", b"x")] + ([("SHA256SUMS", sums)] if sums is not None else [])
    assert message in refused(zipped(tmp_path / "a.zip", *members, sums=False), tmp_path / "to")


def test_encrypted_and_oddly_compressed_are_refused(tmp_path):
    file = zipped(tmp_path / "a.zip", ("x", b"x"))
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    file.write_bytes(data)
    assert "is encrypted" in refused(file, tmp_path / "to")
    assert "unsupported compression" in refused(
        zipped(tmp_path / "b.zip", ("x", b"x"), compression=zipfile.ZIP_LZMA), tmp_path / "to"
    )


def test_a_full_disk_leaves_nothing(packed, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hashlib.sha256", full)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="No space left"):
        restore(packed, "a.zip", tmp_path / "to", CAPS)
    assert sorted(tmp_path.rglob("*")) == before


@settings(max_examples=60)
@given(st.data())
def test_whatever_the_bytes_are_there_is_a_folder_or_one_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model", b"weights" * 9)
        archive.writestr("SHA256SUMS", f"{hashlib.sha256(b'weights' * 9).hexdigest()}  model\n")
    raw = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    (folder / "a.zip").write_bytes(raw)
    try:
        restore(folder / "a.zip", "a.zip", folder / "to", CAPS)
    except UserError:
        assert sorted(folder.iterdir()) == [folder / "a.zip"]
    else:
        assert (folder / "to" / "model").read_bytes() == b"weights" * 9
