"""Model zips and tables of labels, damaged at random, are refused in a sentence."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import damaged, fuzz
from training.judgements import read_labels
from training.predict import ModelError, open_model, resize_side
from training.run_folder import ClassLabel, ImageRow, RunError, read_config, read_manifest

ROWS = [
    ImageRow("images/aaaaaaaaaaaaaaaa.jpg", "c001", "a" * 64, split="test"),
    ImageRow("images/bbbbbbbbbbbbbbbb.jpg", "c002", "b" * 64, split="test"),
    ImageRow("images/cccccccccccccccc.jpg", "c002", "c" * 64, split="train"),
]
CLASSES = (ClassLabel("c001", "cat"), ClassLabel("c002", "dog"))
TABLE = "file,state,class\naaaaaaaaaaaaaaaa.jpg,right,\nbbbbbbbbbbbbbbbb.jpg,other class,cat\n"
CELLS = ['"', '""', ",", ";", "\t", "\r", "\n", "\x00", "right", "off-topic", "c001", "cat", "Dog"]
CELLS += ["images/aaaaaaaaaaaaaaaa.jpg", "../../etc/passwd", "x" * 200_000, "\ufeff", "=1+1", "é"]


@fuzz(150)
@given(data=st.data())
def test_no_table_of_labels_is_an_exception(tmp_path_factory, data):
    parts = data.draw(st.lists(st.sampled_from(CELLS), max_size=12))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-8-sig", "utf-32"]))
    start = data.draw(st.sampled_from([TABLE, "file,label\n", "image;verdict\n", ""]))
    body = (start + "".join(parts)).encode(encoding, "replace")
    if data.draw(st.booleans()):
        body = damaged(data.draw, body)
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    path.write_bytes(body)
    try:
        found = read_labels(path, ROWS, CLASSES)
    except RunError as error:
        assert str(error).endswith(".") and error.remedy
    else:
        assert set(found) <= {row.file for row in ROWS}


@fuzz(150)
@given(data=st.data())
def test_no_model_zip_is_an_exception(tmp_path_factory, data):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name in ("model.onnx", "config.json", "SHA256SUMS", "classes.json"):
            if data.draw(st.integers(0, 5)):
                content = data.draw(
                    st.sampled_from([b"", b"{}", b"\x08\x08", b"[1", bytes(90_000)])
                )
                folder = data.draw(st.sampled_from(["", "picaisso-model/", "../", "/"]))
                archive.writestr(zipfile.ZipInfo(f"{folder}{name}"), content)
    content = body.getvalue()
    if data.draw(st.booleans()):
        content = damaged(data.draw, content)
    path: Path = tmp_path_factory.getbasetemp() / "model.zip"
    path.write_bytes(content)
    for read in (open_model, resize_side):
        with pytest.raises(ModelError):
            read(path)


MANIFEST = (
    '{"file": "images/aaaaaaaaaaaaaaaa.jpg", "class": "c001", "sha256": "' + "a" * 64 + '"}\n'
    '{"file": "images/bbbbbbbbbbbbbbbb.jpg", "class": "c002", "sha256": "' + "b" * 64 + '"}\n'
)
CONFIG = '{"classes": [{"id": "c001", "name": "cat"}, {"id": "c002", "name": "dog"}], "seed": 1}'


@fuzz(200)
@given(data=st.data())
def test_no_damaged_run_folder_is_an_exception(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(damaged(data.draw, CONFIG.encode()))
    (folder / "manifest.jsonl").write_bytes(damaged(data.draw, MANIFEST.encode()))
    for read in (read_config, read_manifest):
        try:
            read(folder)
        except RunError as error:
            assert str(error).endswith(".") and error.remedy
