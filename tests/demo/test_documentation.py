"""The pages of docs/: what they tell people to type is typed here, as it stands there."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import get_commands

import picaisso_client
from scraping.__main__ import build_parser as scraping_parser
from tests.system.mariadb import INSTALLER, SERVER, mariadb
from tests.system.site import PHOTOGRAPHS
from training.__main__ import _parser as training_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# They work on this folder itself, or do not end: the set-up has its own tests, and CI runs `make`.
LEFT_OUT = ("make ", "scripts/setup", "git ")
IN_A_CLONE = ["manage.py", "scraping", "training", "requests_app", "picaisso_site", "templates"]
IN_A_CLONE += ["picaisso_client.py", "static"]


LIBRARY = re.compile(r"^ +(?:\S*python) -m (scraping|training|picaisso_client) (.+)$", re.MULTILINE)
MANAGE = re.compile(r"python manage\.py (\w+)")


def parser_of(program: str) -> argparse.ArgumentParser:
    if program == "scraping":
        return scraping_parser()
    return training_parser() if program == "training" else picaisso_client._parser()


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_command_on_a_page_is_one_that_its_program_takes(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text().replace("\\\n", "")
    for program, rest in LIBRARY.findall(text):
        arguments = shlex.split(rest, comments=True)
        for name in arguments:
            if re.fullmatch(r"[\w-]+\.\w+", name):
                Path(name).touch()  # some flags want a file that is there
        if set(arguments) & {"[-h]", "COMMAND"}:
            continue  # how it is used in general
        parser_of(program).parse_args(arguments)
    known = get_commands()
    assert [name for name in MANAGE.findall(text) if name not in known] == []


def commands_of(page: str) -> list[str]:
    """Return the commands of a page's `sh` blocks in their order; a backslash joins lines."""
    commands = []
    for block in BLOCK.findall((ROOT / "docs" / page).read_text()):
        lines = block.replace("\\\n", "").splitlines()
        commands += [line.strip() for line in lines if line.strip()]
    return [command for command in commands if not command.startswith(LEFT_OUT)]


@pytest.fixture
def clone(tmp_path):
    """A folder in which commands find what they would find in a clone."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in IN_A_CLONE:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def type_in(folder: Path, command: str, **settings: str) -> str:
    """Run a command as a person would; return what it printed."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PICAISSO_")}
    own |= {"DATABASE_URL": "", "EMAIL_URL": "", "DJANGO_SETTINGS_MODULE": ""} | settings
    for name in [name for name, value in own.items() if not value]:
        del own[name]
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=own, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture
def gallery(tmp_path):
    """The site that is searched in place of the web: it knows corgis and shibas."""
    pictures = tmp_path / "gallery"
    pictures.mkdir()
    shutil.copytree(PHOTOGRAPHS / "animals" / "mammals", pictures / "corgi")
    shutil.copytree(PHOTOGRAPHS / "plants", pictures / "shiba inu")
    command = [sys.executable, "-m", "scraping", "gallery", str(pictures), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().split()[1]
        server.terminate()


@pytest.mark.browser
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="needs the demo's photographs")
def test_the_tutorial_leads_from_names_to_an_answer(clone, gallery):
    settings = {
        "PICAISSO_SOURCES": "bing",
        "PICAISSO_BING_URL": gallery,
        "PICAISSO_ALLOWED_PRIVATE_HOSTS": urlsplit(gallery).netloc,
        "PICAISSO_MIN_SIDE": "64",
        "PICAISSO_BACKBONE": "efficientnet_lite0",
    }
    collect, fit, predict = commands_of("tutorial.md")
    type_in(clone, collect, **settings)
    assert len(list((clone / "pictures" / "images").iterdir())) > 60
    type_in(clone, fit, **settings)
    assert {"report.html", "try.html"} <= {file.name for file in (clone / "run/model").iterdir()}
    assert "corgi" in type_in(clone, predict, **settings)


@pytest.mark.mariadb
@pytest.mark.skipif(not (SERVER and INSTALLER), reason="needs mariadb-server")
def test_everything_moves_to_mysql(clone, tmp_path):
    (move,) = commands_of("how-to/move-to-mysql.md")
    data = {"PICAISSO_DATA_DIR": str(tmp_path / "data")}
    python = ".venv/bin/python manage.py"
    type_in(clone, f"{python} migrate", **data)
    type_in(clone, f"{python} shell -c '{MAKE_A_REQUEST}'", **data)
    before = type_in(clone, f"{python} shell -v 0 -c '{DESCRIBE}'", **data)
    assert "corgi" in before and "staff" in before
    with mariadb(tmp_path / "mariadb") as url:
        (clone / "new-database.url").write_text(f"{url}\n")
        type_in(clone, move, **data)
        again = subprocess.run(
            [*move.split()],
            cwd=clone,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "picaisso_site.settings", **data},
            capture_output=True,
            text=True,
        )
        assert again.returncode == 1 and "is not empty" in again.stderr
        data["DATABASE_URL"] = url
        assert type_in(clone, f"{python} shell -v 0 -c '{DESCRIBE}'", **data) == before


MAKE_A_REQUEST = """
from django.contrib.auth.models import User
from requests_app import pipeline
User.objects.create_superuser("staff", "staff@example.org", "secret")
classes = (("corgi", "corgi"), ("łoś", "łoś animal"))
pipeline.submit(pipeline.Submission(classes=classes, email="ada@example.org"))
"""
DESCRIBE = """
from django.contrib.auth.models import User
from requests_app.models import ClassifierRequest, OutgoingMail
for request in ClassifierRequest.objects.all():
    names = [image_class.name for image_class in request.classes.all()]
    print(request.token, request.status, request.email, names)
print(OutgoingMail.objects.count(), [user.username for user in User.objects.all()])
"""
