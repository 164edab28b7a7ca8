"""The commands as a person or a program types them: exit codes, where values come from, JSON
lines.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scraping import ConfigError
from scraping.__main__ import environment_values, main
from scraping.config import CollectConfig
from scraping.sources.catalogue import DEFAULT_ORDER
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.pixabay import KEY, PixabayReplica
from tests.scraping.conftest import environment
from training.environment import read_environment

NO_FILE = Path("no-such-folder", ".env")


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scraping", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_names_become_a_folder_with_its_configuration_and_result(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        (tmp_path / ".env").write_text(
            f"# local\nexport PICAISSO_OPENVERSE_URL='{site.url}'\n"
            "PICAISSO_MIN_SIDE=64\nPICAISSO_MAX_SIDE=512\n"
        )
        done = run(
            *(
                "collect",
                "corgi",
                "shiba inu few",
                "--limit",
                "3",
                "--out",
                "found",
                "--source",
                "openverse",
                "--json",
            ),
            cwd=tmp_path,
            PICAISSO_ALLOWED_PRIVATE_HOSTS=f"{site.host}, {host.host}",
            PICAISSO_MAX_SIDE="300",
        )
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / "found" / "config.json").read_text())
        assert [entry["id"] for entry in config["classes"]] == ["c001", "c002"]
        assert config["classes"][1]["query"] == "shiba inu few"
        assert (config["min_side"], config["max_side"], config["limit"]) == (64, 300, 3)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == 1, "the result alone"
        assert json.loads(done.stderr.splitlines()[0])["stage"] == "collect"
        assert lines[-1] == json.loads((tmp_path / "found" / "result.json").read_text())
        assert [
            entry["kept"] + sum(entry["rejected"].values()) for entry in lines[-1]["classes"]
        ] == [entry["found"] for entry in lines[-1]["classes"]]
        assert lines[-1]["classes"][0]["kept"] > 0


def test_the_flag_for_the_kind_is_kept_in_the_configuration_and_told_at_the_end(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        fixed = ["--source", "openverse", "--source-url", f"openverse={site.url}", "--limit", "2"]
        done = run(
            *("collect", "jaguar", "--kind", " big  cat ", "--out", "found", *fixed, "--json"),
            cwd=tmp_path,
            PICAISSO_ALLOWED_PRIVATE_HOSTS=f"{site.host}, {host.host}",
            PICAISSO_MIN_SIDE="64",
        )
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / "found" / "config.json").read_text())
        assert config["kind"] == "big cat"
        assert site.requests[0].query["q"] == "jaguar big cat"
        assert json.loads(done.stdout.splitlines()[-1])["kind"]["sentence"] == (
            "Searched as “jaguar big cat”, as you asked."
        )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["collect"],
        ["collect", "one", "two"],
        ["collect", "no-such-folder"],
        ["collect", "x", "--out", "o", "--source", "altavista"],
        ["collect", "x", "--out", "o", "--source-url", "nonsense"],
        ["collect", "x", "--out", "o", "--limit", "many"],
        ["collect", "x", "--out", "o", "--limit", "0"],
        ["collect", "x", "--out", "o", "--deadline", "0"],
        ["download", "list.txt", "--out", "o", "--concurrency", "0"],
        ["gallery", ".", "--port", "65536"],
        ["collect", "x", "--out", "o", "--kind"],
        ["collect", "x", "--out", "o", "--kind", "x" * 65],
        ["collect", "x", "--out", "o", "--kind", "car\nanimal"],
        ["collect", "x", "--out", "o", "--kind", "\u202ecar"],
        ["check", "--kind", "animal"],
        ["check", "--source", "altavista"],
        ["check", "--source-url", "nonsense"],
        ["download", "list.txt"],
        ["unknown"],
    ],
)
def test_wrong_usage_ends_with_two(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        (["collect", "."], {}, "config.json"),
        (["collect", "x", "--out", "o"], {"PICAISSO_SOURCES": "altavista"}, "altavista"),
        (["collect", "x", "--out", "o"], {"PICAISSO_MIN_SIDE": "big"}, "PICAISSO_MIN_SIDE"),
        (["collect", "x", "--out", "o", "--max-side", "100"], {}, "max_side is 100"),
        (["collect", "x", "--out", "o"], {"PICAISSO_MIN_SIDE": "0"}, "min_side is 0"),
        (["download", "no-list.txt", "--out", "o"], {}, "no-list.txt"),
        (["gallery", "no-folder"], {}, "no-folder"),
    ],
)
def test_what_is_refused_ends_with_one_and_one_sentence(tmp_path, arguments, variables, word):
    done = run(*arguments, cwd=tmp_path, **variables)
    assert done.returncode == 1
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["collect", "--help"],
        ["check", "--help"],
        ["download", "--help"],
        ["gallery", "--help"],
    ],
)
def test_help_is_there(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "usage: python -m scraping" in done.stdout


def test_the_environment_sets_what_it_names_and_nothing_else():
    values = environment_values(
        {
            "PICAISSO_SOURCES": "bing, openverse",
            "PICAISSO_COLLECT_MINUTES": "2",
            "PICAISSO_BING_URL": "http://127.0.0.1:1",
            "PICAISSO_LOCALE": "",
            "PICAISSO_MIN_IMAGES": "30",
            "PICAISSO_OPENVERSE_CLIENT_ID": "me",
            "HOME": "/",
        }
    )
    expected = {
        "sources": ["bing", "openverse"],
        "deadline_seconds": 120.0,
        "minimum": 30,
        "credentials": {"openverse_client_id": "me"},
        "source_urls": {"bing": "http://127.0.0.1:1"},
    }
    assert values == expected


def test_a_source_that_needs_a_key_is_asked_when_there_is_one():
    assert "sources" not in environment_values({})
    assert environment_values({"PICAISSO_PIXABAY_KEY": "k"})["sources"] == [
        *DEFAULT_ORDER,
        "pixabay",
    ]
    both = {"PICAISSO_PIXABAY_KEY": "k", "PICAISSO_SOURCES": "openverse"}
    assert environment_values(both)["sources"] == ["openverse"]


@pytest.mark.parametrize("name", ["PICAISSO_PIXABAY_KEY", "PICAISSO_OPENVERSE_CLIENT_ID"])
def test_a_credential_in_a_file_counts_like_one_in_a_variable(tmp_path, name):
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    given = environment_values({name: "s3cret"})
    assert given["credentials"]
    assert environment_values(read_environment({f"{name}_FILE": str(key)}, NO_FILE)) == given


def test_a_source_whose_key_lies_in_a_file_is_asked_with_it(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    with PixabayReplica() as site:
        done = run(
            *("check", "--source", "pixabay", "--json"),
            cwd=tmp_path,
            PICAISSO_PIXABAY_URL=site.url,
            PICAISSO_PIXABAY_KEY_FILE="key",
            PICAISSO_ALLOWED_PRIVATE_HOSTS=site.host,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outcome"] in ("ok", "partial")


@pytest.mark.parametrize(
    "arguments",
    [["collect", "x", "--out", "o"], ["check"], ["download", "list.txt", "--out", "o"]],
)
@pytest.mark.parametrize("name", ["PICAISSO_CONTACT_FILE", "PICAISSO_ENV_FILE"])
def test_a_named_file_that_is_missing_is_one_sentence(tmp_path, arguments, name):
    done = run(*arguments, cwd=tmp_path, **{name: "missing"})
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"The file missing, which {name} names, cannot be read: No such file or directory."
    ]


def test_a_collection_whose_settings_cannot_be_read_says_so_in_its_folder(tmp_path):
    folder = tmp_path / "things"
    folder.mkdir()
    done = run("collect", "x", "--out", "things", cwd=tmp_path, PICAISSO_CONTACT_FILE="missing")
    result = json.loads((folder / "result.json").read_text())
    assert done.returncode == 2
    assert result["ok"] is False
    assert result["error"]["reason"] == done.stderr.strip()


def test_credentials_do_not_reach_the_processes_that_read_strangers_bytes(monkeypatch, tmp_path):
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    monkeypatch.setenv("PICAISSO_OPENVERSE_CLIENT_ID", "id")
    monkeypatch.setenv("PICAISSO_PIXABAY_KEY_FILE", str(key))
    listed = tmp_path / "list.txt"
    listed.write_text("")
    main(["download", str(listed), "--out", str(tmp_path / "out")])
    assert not {name for name in os.environ if "OPENVERSE" in name or "PIXABAY" in name}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"classes": []},
        {"classes": [{"id": "c001", "name": "x"}]},
        {"classes": [{"id": "../x", "name": "x", "query": "x"}]},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}] * 2},
        {"classes": [{"id": "c001", "name": "x", "query": " "}]},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "robots": "ignore"},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "license": "free"},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "limit": "ten"},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "limt": 10},
        {
            "classes": [{"id": "c001", "name": "x", "query": "x"}],
            "credentials": {"flickr_key": "x"},
        },
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "taken_down": {"hashes": ["x"]}},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "taken_down": {"pages": []}},
        {"classes": [{"id": "c001", "name": "x", "query": "x"}], "minimum": -1},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_in_a_sentence(values):
    with pytest.raises(ConfigError) as caught:
        CollectConfig.of(values)
    assert str(caught.value).endswith(".")


def test_neither_django_nor_torch_is_loaded(tmp_path):
    code = (
        "import sys, scraping.__main__, scraping.collect, scraping.gallery;"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(loaded & {'django', 'torch', 'sklearn'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_collection_in_which_no_source_can_be_reached_is_refused_with_what_to_do(tmp_path):
    out = tmp_path / "found"
    fixed = ("--source", "openverse", "--source-url", "openverse=http://127.0.0.1:9")
    allowed = ("--allow-private-host", "127.0.0.1:9")
    ended = run("collect", "corgi", "shiba inu", "--out", str(out), *fixed, *allowed, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("No source could be reached, so nothing was")


def test_two_classes_of_one_name_are_wrong_usage(tmp_path):
    ended = run("collect", "corgi", "Corgi", "--out", str(tmp_path / "found"), cwd=tmp_path)
    assert ended.returncode == 2 and "classes 1 and 2 have the same name" in ended.stderr
