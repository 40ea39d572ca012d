"""Archives: what is kept of the names, what is refused, damage."""

import zipfile

import pytest

from data_prep.unpack import main, unpack
from sgrl.errors import SgrlError


def make(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return path


def test_masks_of_pvsg(layouts, tmp_path):
    root = layouts / "pvsg"
    archive = root / "data_zip_example" / "VidOR" / "vidor_masks.zip"
    assert unpack(archive, tmp_path, keep=2) == 10
    for file in (root / "vidor" / "masks").rglob("*.png"):
        assert (tmp_path / file.relative_to(root / "vidor" / "masks")).read_bytes() == file.read_bytes()
    assert unpack(archive, tmp_path, keep=2) == 0  # nothing is left to do


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a/..", "C:/evil", "..\\evil", "a//evil", "a/../b/c"]
)
@pytest.mark.parametrize("keep", [None, 1, 2])
def test_a_member_that_climbs_out_stops_everything(tmp_path, name, keep):
    archive = make(tmp_path / "bad.zip", ["good/file", name])
    output = tmp_path / "deep" / "output"
    with pytest.raises(SgrlError, match="points outside of the folder; nothing was written"):
        unpack(archive, output, keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("folder")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("folder/passwd", "x")
    with pytest.raises(SgrlError, match="'folder' is a link"):
        unpack(tmp_path / "bad.zip", tmp_path / "output")


def test_members_do_not_overwrite_each_other(tmp_path):
    archive = make(tmp_path / "masks.zip", ["masks/a/0000.png", "masks/b/0000.png"])
    with pytest.raises(SgrlError, match="'masks/a/0000.png' and 'masks/b/0000.png' would both become '0000.png'"):
        unpack(archive, tmp_path / "output", keep=1)
    assert unpack(archive, tmp_path / "output", keep=2) == 2
    assert (tmp_path / "output" / "b" / "0000.png").read_text() == "content of masks/b/0000.png"


def test_damage(tmp_path, capsys):
    archive = make(tmp_path / "masks.zip", ["a/0000.png", "a/0001.png"])
    raw = archive.read_bytes()
    archive.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SgrlError, match="truncated or damaged"):
        unpack(archive, tmp_path / "output")
    archive.write_bytes(raw.replace(b"content of a/0001", b"CONTENT of a/0001"))
    assert main([str(archive), "--output", str(tmp_path / "output")]) == 1
    assert "Bad CRC-32" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "output" / "a").iterdir()] == ["0000.png"]  # no half file
    with pytest.raises(SgrlError, match="--keep is 0"):
        unpack(archive, tmp_path / "output", keep=0)


def test_archives_that_claim_too_much(tmp_path, monkeypatch):
    """Members that share their bytes, and more than the disk has room for: nothing is written."""
    archive = make(tmp_path / "a.zip", ["a/1", "b/2"])
    raw = archive.read_bytes()
    shared = bytearray(raw)
    for at in range(len(raw)):
        if raw.startswith(b"PK\x01\x02", at):  # the sizes in the central directory
            shared[at + 20 : at + 24] = len(raw).to_bytes(4, "little")
    archive.write_bytes(shared)
    with pytest.raises(SgrlError, match="claims .* bytes of members|damaged"):
        unpack(archive, tmp_path / "out")
    archive.write_bytes(raw)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 10}))
    with pytest.raises(SgrlError, match="unpacks to 28 bytes, .* has 10; nothing"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_deflate_stream(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(range(256)) * 40)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[40:60] = b"\xff" * 20
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(SgrlError, match="truncated or damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
