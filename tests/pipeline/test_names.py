"""What delivered files are called: after the classes, and so that every system takes it."""

import hashlib
import re
import zipfile

import pytest

from requests_app.delivery import names
from requests_app.delivery.model_zip import open_artifact
from requests_app.models import Artifact


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["corgi", "shiba inu"], "corgi-shiba-inu"),
        (["łoś", "Żubr", "æsj", "straße"], "los-zubr-aesj-strasse"),
        (["狗", "猫"], "u72d7-u732b"),
        (["c++", "c#", "c"], "cplusplus-csharp-c"),
        (["a b", "a/b", "..\\b", " b. "], "a-b-a-b-b-b"),
        (["🐕", "?!", "Q&A"], "u1f415-u3f-u21-q-and-a"),
        (["CON", "nul", "aux.txt"], "con-nul-aux-txt"),
        (["한국어 개"], "ud55c-uad6d-uc5b4-u20"),
    ],
)
def test_names_of_files_are_plain_letters_that_tell_the_classes(classes, expected):
    assert names.stem(classes) == expected


def test_ten_long_names_stay_short():
    classes = [f"class number {number} {'of many ' * 6}" for number in range(10)]
    stem = names.stem(classes)
    assert stem.endswith("-and-9-more") and len(stem) < 80
    assert re.fullmatch("[a-z0-9-]+", stem)


@pytest.mark.django_db(transaction=True)
def test_both_zips_unpack_side_by_side_and_every_sum_holds(packaged, tmp_path):
    for artifact in Artifact.objects.exclude(kind__in=("croissant", "recipe")):
        top = f"picaisso-cat-dog-{artifact.kind}"
        assert names.file_name(artifact) == f"{top}.zip"
        with open_artifact(artifact) as file, zipfile.ZipFile(file) as archive:
            assert {name.split("/")[0] for name in archive.namelist()} == {top}
            archive.extractall(tmp_path / "got")
        for line in (tmp_path / "got" / top / "SHA256SUMS").read_text().splitlines():
            digest, _, name = line.partition("  ")
            content = (tmp_path / "got" / top / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
    folders = sorted(path.name for path in (tmp_path / "got").iterdir())
    assert folders == ["picaisso-cat-dog-dataset", "picaisso-cat-dog-model"]


@pytest.mark.django_db(transaction=True)
def test_files_of_a_later_version_say_which(packaged):
    artifact = Artifact.objects.get(kind="model")
    artifact.version.number = 2
    assert names.file_name(artifact) == "picaisso-cat-dog-model-version-2.zip"
