"""F26: delivered zips of any size and with any dates and labels open everywhere."""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import PurePosixPath

import pytest

from requests_app.delivery.dataset_zip import publish
from tests.hostile import TIMES

END_OF_ZIP64 = b"PK\x06\x06"  # the record of a directory that is too large for a plain zip
MORE_THAN_A_PLAIN_ZIP = 65_536  # files
LABELS = json.dumps({"c001": "狗", "c002": "e\u0301 🐶"}, ensure_ascii=False).encode()


def opens_everywhere(path) -> zipfile.ZipFile:
    """Check a zip as other programs do; return it as Python reads it."""
    unzip = shutil.which("unzip")
    if unzip:
        tested = subprocess.run([unzip, "-tqq", path], capture_output=True, text=True)
        assert tested.returncode == 0, tested.stderr[:500]
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith("/") and ".." not in PurePosixPath(name).parts
        assert "\\" not in name and ":" not in name and name.isascii()
    return archive


def test_f26_a_zip_of_more_files_than_a_plain_zip_holds(tmp_path):
    old = tmp_path / "of 1970.jpg"
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    entries = [(f"train/c001/{number:016x}.jpg", b"") for number in range(MORE_THAN_A_PLAIN_ZIP)]
    entries += [("train/c001/of-1970.jpg", old), ("classes.json", LABELS)]
    target = tmp_path / "dataset.zip"
    made = publish(entries, target, "picaisso-dataset")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == made.sha256
    assert END_OF_ZIP64 in target.read_bytes()[-200:]
    with opens_everywhere(target) as archive:
        assert len(archive.namelist()) == len(entries) + 1
        assert archive.read("picaisso-dataset/train/c001/of-1970.jpg") == b"old"
        assert json.loads(archive.read("picaisso-dataset/classes.json")) == json.loads(LABELS)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        sums = archive.read("picaisso-dataset/SHA256SUMS").decode().splitlines()
        assert f"{hashlib.sha256(b'old').hexdigest()}  train/c001/of-1970.jpg" in sums


def test_f26_a_small_zip_needs_no_large_directory(tmp_path):
    target = tmp_path / "dataset.zip"
    publish([("classes.json", LABELS)], target, "picaisso-dataset")
    assert END_OF_ZIP64 not in target.read_bytes()
    opens_everywhere(target).close()


@pytest.mark.skipif(TIMES == 1, reason="a zip of 4 GiB takes a minute: FUZZ_TIMES=2 makes it")
def test_f26_a_zip_of_more_than_4_gib(tmp_path):
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate((4 << 30) + 5)
    target = tmp_path / "dataset.zip"
    made = publish([("train/c001/a.jpg", large), ("classes.json", LABELS)], target, "top")
    assert made.bytes > 4 << 30
    with opens_everywhere(target) as archive:
        assert archive.getinfo("top/train/c001/a.jpg").file_size == (4 << 30) + 5
        assert json.loads(archive.read("top/classes.json")) == json.loads(LABELS)
