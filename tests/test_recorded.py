"""What the version before wrote still opens: its database, collection folder and run folder."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "tests" / "recorded" / "picaisso-0.1.0.tar.xz"
VISIT = """
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from requests_app.models import ClassifierRequest

page = ClassifierRequest.objects.get().get_absolute_url()
visitor = Client(SERVER_NAME="127.0.0.1")
staff = Client(SERVER_NAME="127.0.0.1")
staff.force_login(User.objects.create_superuser("staff"))
for client, path in (
    (visitor, page),
    (visitor, page + "progress/"),
    (visitor, page + "try/"),
    (staff, "/admin/"),
    (staff, "/admin/requests_app/trainingrun/"),
    (staff, "/admin/requests_app/imageurl/"),
):
    answer = client.get(path)
    print(answer.status_code, answer.content.decode())
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The unpacked data folder; tests that change something copy it first."""
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def copied(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "data")


def run(data: Path, *arguments: object) -> str:
    """Run Python with the recorded data folder; return what it printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    own |= {"PICAISSO_DATA_DIR": str(data), "PICAISSO_ENV_FILE": os.devnull, "DATABASE_URL": ""}
    own |= {"PICAISSO_DEBUG": "1", "DJANGO_SETTINGS_MODULE": "picaisso_site.settings"}
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_recorded_model_predicts(recorded):
    run_folder = recorded / "requests/1/runs/1"
    image = next((run_folder / "images").iterdir())
    answer = json.loads(run(recorded, "-m", "training", "predict", run_folder, image, "--json"))
    assert set(answer["probabilities"]) == {"warm", "cool"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_a_recorded_run_that_was_cut_off_is_finished_with_the_same_split(copied):
    run_folder = copied / "requests/1/runs/1"
    before = {row["file"]: row["split"] for row in lines(run_folder / "manifest.jsonl")}
    (run_folder / "result.json").unlink()
    shutil.rmtree(run_folder / "model")
    config = json.loads((run_folder / "config.json").read_text())
    config["weights_cache"] = str(copied / "cache" / "weights")
    (run_folder / "config.json").write_text(json.dumps(config))

    run(copied, "-m", "training", "fit", run_folder, "--json")

    after = {row["file"]: row["split"] for row in lines(run_folder / "manifest.jsonl")}
    assert after == before
    assert json.loads((run_folder / "result.json").read_text())["ok"]


def test_a_recorded_collection_that_was_cut_off_is_finished_without_a_search(copied):
    """Its gallery is gone: every image it needs is there, and its searches are remembered."""
    folder = copied / "requests/1/collect"
    before = json.loads((folder / "result.json").read_text())
    (folder / "result.json").unlink()

    run(copied, "-m", "scraping", "collect", folder, "--json")

    after = json.loads((folder / "result.json").read_text())
    kept = {entry["id"]: entry["kept"] for entry in after["classes"]}
    assert kept == {entry["id"]: entry["kept"] for entry in before["classes"]}
    assert {entry["id"]: entry["rejected"] for entry in after["classes"]} == {
        entry["id"]: entry["rejected"] for entry in before["classes"]
    }


def test_a_recorded_database_is_migrated_and_its_pages_open(copied):
    run(copied, "manage.py", "migrate", "--verbosity", "0")
    visited = run(copied, "-c", VISIT)
    failures = ("302 ", "400 ", "404 ", "500 ")
    assert [line for line in visited.splitlines() if line.startswith(failures)] == []
    assert "100 %" in visited and "warm" in visited
    assert "Which is it: <bdi>warm</bdi> or <bdi>cool</bdi>?" in visited


def test_an_image_of_a_recorded_request_is_taken_down(copied):
    run_folder = copied / "requests/1/runs/1"
    collected = lines(copied / "requests/1/collect/images.jsonl")
    kept = next(row for row in collected if row.get("file"))
    name = Path(kept["file"]).name
    assert name in (run_folder / "manifest.jsonl").read_text()

    run(copied, "manage.py", "migrate", "--verbosity", "0")
    run(copied, "manage.py", "takedown", kept["image_url"])

    assert name not in (run_folder / "manifest.jsonl").read_text()
    assert not (run_folder / "images" / name).exists()
    assert not (copied / "requests/1/collect/images" / name).exists()
    assert kept["image_url"] not in (run_folder / "model/report.html").read_text()
