"""`manage.py backup` and `restore`, as an operator types them, on the site that 0.1.0 recorded."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.demo.test_documentation import MAKE_A_REQUEST
from tests.system.mariadb import INSTALLER, SERVER, mariadb
from tests.test_recorded import ROOT, VISIT, recorded  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
TOKENS = """
from requests_app.models import *
print([(r.token, r.status, r.email, r.images_per_class) for r in ClassifierRequest.objects.all()])
print(ImageUrl.objects.count(), OutgoingMail.objects.count())
"""


def manage(data: Path, *words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    own |= {"PICAISSO_DATA_DIR": str(data), "PICAISSO_ENV_FILE": os.devnull, "DATABASE_URL": ""}
    own |= {"DJANGO_SETTINGS_MODULE": "picaisso_site.settings", **settings}
    command = [sys.executable, *map(str, words)]
    if words[0] != "-c":
        command.insert(1, "manage.py")
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=200)


def done(data: Path, *words: object, **settings: str) -> str:
    ended = manage(data, *words, **settings)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def refusal(data: Path, *words: object, **settings: str) -> str:
    ended = manage(data, *words, **settings)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] in ("requests", "secret_key")
    }


@pytest.fixture(scope="module")
def old(recorded, tmp_path_factory):  # noqa: F811
    """A backup of the site of 0.1.0, and its data folder."""
    folder = tmp_path_factory.mktemp("old")
    data = shutil.copytree(recorded, folder / "data")
    picture = next((data / "requests/1/collect/images").iterdir())
    os.link(picture, picture.with_name("same.jpg"))
    (data / "requests/1/images").symlink_to("collect/images")
    (data / "arriving").mkdir(exist_ok=True)
    (data / "arriving" / "half").write_text("half")
    done(data, "migrate", "-v0")
    file = folder / "backup.tar"
    told = json.loads(done(data, "backup", file, "--json"))
    assert told["database"] == "sqlite" and told["files"] > 10 and told["vanished"] == 0
    return file, data


def test_a_site_is_as_before_when_it_is_restored_from_its_backup(old, tmp_path):
    file, data = old
    assert file.stat().st_mode & 0o777 == 0o600
    assert "is whole" in done(tmp_path / "unused", "restore", "--check", file)
    new = tmp_path / "new"
    assert "Restored" in done(new, "restore", file)
    assert files_of(new) == files_of(data)
    assert not (new / "arriving" / "half").exists()
    assert [path.name for path in new.iterdir() if "restoring" in path.name] == []
    pair = [path.stat() for path in (new / "requests/1/collect/images").glob("*")]
    assert any(state.st_nlink == 2 for state in pair), "one file of two names stays one"
    assert done(new, "shell", "-v0", "-c", TOKENS) == done(data, "shell", "-v0", "-c", TOKENS)
    done(new, "migrate", "-v0")
    visited = done(new, "-c", VISIT, PICAISSO_DEBUG="1")
    assert "Which is it: <bdi>warm</bdi> or <bdi>cool</bdi>?" in visited


def test_a_backup_that_is_damaged_or_cut_off_is_refused_before_anything_is_written(old, tmp_path):
    file, _ = old
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        member = next(each for each in archive if each.name.endswith(".jpg") and each.isfile())
    flipped = bytearray(whole)
    flipped[member.offset_data + 100] ^= 1
    broken = {
        "flipped": bytes(flipped),
        "cut": whole[: len(whole) // 2],
        "cut between files": whole[: member.offset],
        "empty": b"",
        "another": b"PK\3\4 no tar at all" * 100,
    }
    for name, content in broken.items():
        damaged = tmp_path / f"{name}.tar"
        damaged.write_bytes(content)
        new = tmp_path / name
        assert "backup" in refusal(new, "restore", damaged)
        assert not (new / "requests").exists() and not (new / "db.sqlite3").exists()
    assert "cannot be read" in refusal(tmp_path / "new", "restore", tmp_path / "nowhere.tar")


def test_nothing_is_ever_overwritten(old, tmp_path):
    file, data = old
    before = files_of(data)
    assert "is not empty" in refusal(data, "restore", file)
    assert files_of(data) == before
    assert "exists already" in refusal(data, "backup", file)
    assert "outside" in refusal(data, "backup", data / "backup.tar")
    elsewhere = f"sqlite:///{tmp_path / 'there.sqlite3'}"
    (tmp_path / "there.sqlite3").touch()
    assert "exists" in refusal(tmp_path / "new", "restore", file, DATABASE_URL=elsewhere)


def test_a_backup_of_a_newer_version_is_refused(old, tmp_path):
    file, _ = old
    data = tmp_path / "data"
    done(data, "restore", file)
    with sqlite3.connect(data / "db.sqlite3") as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied)"
            " VALUES ('requests_app', '9999_of_the_future', '2030-01-01')"
        )
    backup = tmp_path / "backup.tar"
    done(data, "backup", backup)
    assert "newer version" in refusal(tmp_path / "new", "restore", backup)


def test_the_backup_of_a_site_that_works_is_as_of_one_moment(old, tmp_path):
    """While somebody writes all the time, each backup's database is whole."""
    file, _ = old
    data = tmp_path / "data"
    done(data, "restore", file)
    done(data, "migrate", "-v0")
    writer = f"""
import sqlite3, time
database = sqlite3.connect({str(data / "db.sqlite3")!r}, timeout=20)
while True:
    with database:
        key = "hex(randomblob(8))"
        database.execute(f"INSERT INTO django_session VALUES ({{key}}, 'a', '2030-01-01')")
    time.sleep(.001)
"""
    with subprocess.Popen([sys.executable, "-c", writer]) as writing:
        try:
            done(data, "backup", tmp_path / "backup.tar")
            assert writing.poll() is None
        finally:
            writing.kill()
    done(tmp_path / "new", "restore", tmp_path / "backup.tar")
    with sqlite3.connect(tmp_path / "new" / "db.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.mariadb
@pytest.mark.skipif(not (SERVER and INSTALLER), reason="needs mariadb-server")
def test_a_site_on_mariadb_is_restored_into_another_database(old, tmp_path):
    data = tmp_path / "data"
    with mariadb(tmp_path / "mariadb") as url:
        done(data, "migrate", "-v0", DATABASE_URL=url)
        done(data, "shell", "-v0", "-c", MAKE_A_REQUEST, DATABASE_URL=url)
        file = tmp_path / "backup.tar"
        done(data, "backup", file, DATABASE_URL=url)
        assert "not empty" in refusal(tmp_path / "new", "restore", file, DATABASE_URL=url)
        create = (
            "from django.db import connection; connection.cursor().execute('CREATE DATABASE b')"
        )
        done(data, "shell", "-v0", "-c", create, DATABASE_URL=url)
        other = f"{url.rpartition('/')[0]}/b"
        assert "sqlite" in refusal(tmp_path / "new", "restore", old[0], DATABASE_URL=other)
        done(tmp_path / "new", "restore", file, DATABASE_URL=other)
        before = done(data, "shell", "-v0", "-c", TOKENS, DATABASE_URL=url)
        assert "ada@example.org" in before
        after = done(tmp_path / "new", "shell", "-v0", "-c", TOKENS, DATABASE_URL=other)
        assert after == before
