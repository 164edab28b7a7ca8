"""The client of one file, against the site's own server."""

import doctest
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.cache import cache

import picaisso_client
from picaisso_client import Picaisso, PicaissoError, main
from requests_app import supplied
from requests_app.delivery import names
from requests_app.models import ClassifierRequest, Status
from tests.web.conftest import MODEL_ZIP, delivered, stopped, submitted
from tests.web.delivered_model import deliver_model, export_model, write_pictures

__all__ = ["deliver_model", "export_model"]
ROOT = Path(picaisso_client.__file__).parent
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def picaisso(live_server, settings) -> Picaisso:
    settings.BASE_URL = live_server.url
    cache.clear()
    return Picaisso(live_server.url)


def test_its_examples_do_what_they_say(picaisso):
    parser = doctest.DocTestParser()
    text = picaisso_client.__doc__ or ""
    example = parser.get_doctest(text, {"picaisso": picaisso}, "picaisso_client", None, 0)
    found = io.StringIO()
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    results = doctest.DocTestRunner(optionflags=options).run(example, out=found.write)
    assert results.failed == 0 and results.attempted >= 7, found.getvalue()


def test_it_needs_nothing_but_python():
    code = "import picaisso_client, sys; print(sorted(sys.modules))"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('{ROOT}'); {code}"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "django" not in loaded and "requests_app" not in loaded


def test_an_interrupted_download_goes_on_and_what_is_damaged_is_thrown_away(picaisso, tmp_path):
    shown = picaisso.show(delivered("cat", "dog").token)
    model = next(artifact for artifact in shown["artifacts"] if artifact["kind"] == "model")
    part = tmp_path / "picaisso-cat-dog-model.zip.part"
    part.write_bytes(MODEL_ZIP[:700])
    steps: list[int] = []
    file = picaisso.download(model, tmp_path, steps.append)
    assert file.read_bytes() == MODEL_ZIP and steps == [len(MODEL_ZIP)]
    written = file.stat().st_mtime_ns
    assert picaisso.download(model, tmp_path).stat().st_mtime_ns == written, "it is there already"
    file.unlink()
    part.write_bytes(b"x" * 700)
    with pytest.raises(PicaissoError, match=r"picaisso-cat-dog-model\.zip is damaged"):
        picaisso.download(model, tmp_path)
    assert not part.exists() and not file.exists()
    assert (
        hashlib.sha256(picaisso.download(model, tmp_path).read_bytes()).hexdigest()
        == (model["sha256"])
    )


def test_pictures_are_listed_corrected_and_trained_on_again(picaisso):
    classifier = delivered("cat", "dog")
    first = next(picaisso.images(classifier.token, state="kept"))
    assert picaisso.correct(classifier.token, first["id"], state="removed")["state"] == "removed"
    assert picaisso.correct(classifier.token, first["id"], label="dog")["class"] == "dog"
    assert picaisso.versions(classifier.url)["items"][0]["number"] == 1, "a link is understood"
    with pytest.raises(PicaissoError) as refused:
        picaisso.retrain(classifier.token)
    assert refused.value.code == "wrong_state"
    assert picaisso.share(classifier.token).endswith("/")
    picaisso.delete(classifier.token)
    with pytest.raises(PicaissoError, match="expired or was deleted"):
        picaisso.show(classifier.token)


def test_the_command_orders_waits_downloads_and_classifies(picaisso, with_model, tmp_path, capsys):
    site = ["--site", picaisso.site]
    ordered = main(["submit", "corgi", "shiba inu", "--email", "a@example.org", "--json", *site])
    order = json.loads(capsys.readouterr().out)
    assert ordered == 0 and order["status"] == "unconfirmed"
    assert ClassifierRequest.objects.filter(status=Status.UNCONFIRMED).exists()
    out = tmp_path / "out"
    assert main(["wait", with_model.token, "--out", str(out), *site]) == 0
    told = capsys.readouterr()
    assert "delivered" in told.out and "% right" in told.out and "100" not in told.err
    files = {file.name for file in out.iterdir()}
    called = f"picaisso-{names.stem(names.names_of(with_model))}"
    assert files == {f"{called}-model.zip", f"{called}-dataset.zip"}
    pictures = list(map(str, write_pictures(tmp_path / "pictures")[:2]))
    assert main(["predict", with_model.token, *pictures, "--json", *site]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["picture"] for line in lines] == pictures and lines[0]["version"] == 1
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    assert main(["predict", with_model.token, str(notes), str(tmp_path / "gone"), *site]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "gone cannot be read" in errors[1]


def test_what_fails_ends_with_one_sentence_and_its_exit_code(picaisso, capsys):
    site = ["--site", picaisso.site]
    assert main(["submit", "corgi", "--email", "a@example.org", *site]) == 1
    error = capsys.readouterr().err
    assert error.startswith("picaisso: Name a second class") and "\n" in error
    assert main(["submit", "corgi", "--email", "bad", *site]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2, "a line for each mistake"
    assert main(["submit", "a", "b", "--email", "a@example.org", "--site", "example.org"]) == 1
    assert "begins with http:// or https://" in capsys.readouterr().err
    assert main(["download", submitted().token, *site]) == 1
    assert "nothing to download yet" in capsys.readouterr().err
    assert main(["wait", stopped(Status.FAILED).token, "--quiet", *site]) == 1
    told = capsys.readouterr()
    assert "Try another wording." in told.out and not told.err
    assert main(["status", f"-{'x' * 31}", *site]) == 1
    assert "usage" not in capsys.readouterr().err, "an id may begin with a hyphen"
    with pytest.raises(SystemExit) as ended:
        main(["submit", "corgi", "shiba inu", *site])
    assert ended.value.code == 2 and "--email" in capsys.readouterr().err
    for flag in ("--own-as-test", "--own-alone"):
        with pytest.raises(SystemExit) as ended:
            main(["submit", "corgi", "shiba inu", "--email", "a@example.org", flag, *site])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and f"{flag} needs --own ZIP or --urls CSV" in error


def test_a_site_without_room_is_not_sent_the_same_pictures_again(picaisso, monkeypatch, tmp_path):
    monkeypatch.setattr(supplied, "MOST_WAITING", 0)
    monkeypatch.setattr(picaisso_client.time, "sleep", lambda _: pytest.fail("it waits"))
    table = tmp_path / "urls.csv"
    table.write_text("url,label\nhttps://a.example/1.jpg,cat\n")
    with pytest.raises(PicaissoError, match="Too many uploads") as refused:
        picaisso.submit_own("a@example.org", addresses=table, classes=["cat", "dog"])
    assert refused.value.status == 503


def test_a_site_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(picaisso_client.time, "sleep", lambda seconds: None)
    assert main(["status", "x", "--site", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9 could not be reached" in capsys.readouterr().err


def test_files_are_fetched_from_the_site_that_was_asked(picaisso, settings, tmp_path, capsys):
    settings.BASE_URL = "http://127.0.0.1:9"  # what it calls itself, where nobody answers
    token = delivered("cat", "dog").token
    asked = ["download", token, "--out", str(tmp_path), "--site", picaisso.site]
    assert main([*asked, "--kind", "model"]) == 0
    assert [file.read_bytes() for file in tmp_path.glob("*-model.zip")] == [MODEL_ZIP]
    capsys.readouterr()
    assert main([*asked, "--kind", "foo"]) == 1
    assert "There is no “foo” to download, only" in capsys.readouterr().err
