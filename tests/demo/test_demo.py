"""``manage.py demo``: its parts, and what it leaves behind when it is refused, stopped or killed.

The demo from its form to its delivery is not repeated here: ``make demo`` runs it, and CI runs
that.
"""

import fcntl
import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from django.utils import timezone
from PIL import Image
from rich.console import Console

from requests_app.demo import outcome, scenario
from requests_app.demo.visitor import DemoFailed, Visitor, find_link
from requests_app.models import ClassifierRequest, Event, Job, Status

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments):
    return [sys.executable, str(ROOT / "manage.py"), "demo", *arguments]


@pytest.fixture
def environment(tmp_path):
    """A data folder of the test's own for the command's first half; its second half has the demo's
    folder.
    """
    variables = dict(os.environ)
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    variables["PICAISSO_DATA_DIR"] = str(tmp_path / "data")
    return variables


def run_demo(environment, *arguments):
    return subprocess.run(
        command(*arguments), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


# --- refusals ---


def test_without_photographs_it_says_where_to_get_them(environment, tmp_path):
    result = run_demo(environment, "--photographs", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert "tuxpaint-stamps-default" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_demo_in_the_same_folder_is_refused(environment, tmp_path):
    with (tmp_path / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_demo(
            environment, "--folder", str(tmp_path / "site"), "--photographs", str(tmp_path)
        )
    assert result.returncode == 1
    assert "Another demo is running" in result.stderr
    assert not (tmp_path / "site").exists()


def test_what_a_person_configured_for_the_site_does_not_reach_the_demo(monkeypatch, tmp_path):
    for name in ("EMAIL_URL", "PICAISSO_SOURCES", "DATABASE_URL_FILE", "PICAISSO_CHROME"):
        monkeypatch.setenv(name, "something")
    environment = scenario.clean_environment() | scenario.own_settings(tmp_path)
    assert environment["EMAIL_URL"] == ""
    assert environment["DATABASE_URL"].startswith(f"sqlite:///{tmp_path}")
    assert "PICAISSO_SOURCES" not in environment
    assert "DATABASE_URL_FILE" not in environment
    assert environment["PICAISSO_CHROME"] == "something"


# --- leaving nothing behind ---


@pytest.fixture
def photographs(tmp_path):
    """Two folders of pictures, so that the gallery starts; the demo is stopped before it asks for
    them.
    """
    for name in ("mammals", "plants"):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (80, 80), "white").save(folder / "one.png")
    return tmp_path / "photographs"


@pytest.fixture
def running_demo(environment, tmp_path, photographs):
    """A demo whose site answers and whose request is confirmed, with its folder."""
    folder = tmp_path / "site"
    process = subprocess.Popen(
        command("--folder", str(folder), "--photographs", str(photographs), "--limit", "120"),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if line.startswith("mail"):
                break
        assert processes_of(folder), process.communicate()[1]
        yield process, folder
    finally:
        process.kill()
        process.communicate()


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_or_killed_in_the_middle_it_leaves_no_process(running_demo, number):
    process, folder = running_demo
    process.send_signal(number)
    assert process.wait(60) != 0
    until = time.monotonic() + 20
    while left := processes_of(folder):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def processes_of(folder):
    """pid -> command line of the processes whose environment names the demo's folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes()
            names = ("PICAISSO_DATA_DIR", "PICAISSO_HOME")
            if any(f"{name}={folder}\0".encode() in variables for name in names):
                command_line = (entry / "cmdline").read_bytes()
                found[entry.name] = command_line.replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def test_a_process_that_ends_by_itself_is_named_with_its_code(tmp_path):
    processes = scenario.ChildProcesses(tmp_path, limit_seconds=30)
    processes.start("gallery", ["-c", "import sys; print('no photographs'); sys.exit(3)"], {})
    with pytest.raises(DemoFailed, match="The gallery ended by itself with exit code 3"):
        processes.wait_for("nothing", lambda: False, 30)
    assert "no photographs" in processes.log_tails()


def test_waiting_ends_when_the_time_of_the_whole_demo_is_over(tmp_path):
    processes = scenario.ChildProcesses(tmp_path, limit_seconds=0.1)
    with pytest.raises(DemoFailed, match="Gave up waiting for the mail"):
        processes.wait_for("the mail", lambda: False, 60)


def test_a_process_that_ignores_the_polite_signal_is_ended_by_force(
    tmp_path, monkeypatch, settings
):
    settings.STOP_SECONDS = 0.2
    monkeypatch.setattr(scenario, "KILL_GRACE_SECONDS", 0.2)
    processes = scenario.ChildProcesses(tmp_path, limit_seconds=20)
    stubborn = """
import signal, time
signal.signal(15, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
    processes.start("site", ["-c", stubborn], {})
    log = processes.log_file("site")
    processes.wait_for("the process", lambda: "ready" in log.read_text(), 20)
    processes.stop()
    processes.check()  # nothing is left to be checked


# --- the visitor ---

FORM = """
<form method="post">
<input type="hidden" name="csrfmiddlewaretoken" value="a&amp;b"><input name="email">
</form>
"""


class FormSite(BaseHTTPRequestHandler):
    """A page with a form that demands its cookie and its hidden field, and leads on."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Set-Cookie", "csrftoken=cookie; Path=/")
        self.end_headers()
        self.wfile.write(FORM.encode())

    def do_POST(self):
        fields = parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.posted.append(fields)
        wanted = {("csrfmiddlewaretoken", "a&b"), ("classes", "plant")}
        cookies = self.headers.get("Cookie", "")
        is_good = wanted <= set(fields) and "csrftoken=cookie" in cookies
        self.send_response(303 if is_good else 400)
        self.send_header("Location", "/r/token/")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def form_site():
    with ThreadingHTTPServer(("127.0.0.1", 0), FormSite) as server:
        server.posted = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_visitor_sends_the_form_with_its_hidden_field_and_cookie_and_follows(form_site):
    server, url = form_site
    led_to = Visitor(url).send_form("/", [("classes", "mammal"), ("classes", "plant")])
    assert led_to == f"{url}/r/token/"
    assert [value for name, value in server.posted[0] if name == "classes"] == ["mammal", "plant"]


def test_a_form_that_is_refused_ends_the_demo_with_a_sentence(form_site):
    with pytest.raises(DemoFailed, match="answered 400 to the form"):
        Visitor(form_site[1]).send_form("/", [("classes", "mammal")])


def test_a_link_is_found_in_a_mail_whose_lines_were_wrapped_for_transport(tmp_path):
    link = "http://127.0.0.1:8000/confirm/" + "x" * 90 + ":1wabc:signature/"
    mail = EmailMessage()
    mail.set_content(f"Please open\n\n{link}\n\nThank you.", cte="quoted-printable")
    mail.add_alternative("<p>html</p>", subtype="html")
    (tmp_path / "one.eml").write_bytes(mail.as_bytes())
    assert find_link(tmp_path, r"http://127\.0\.0\.1:8000/confirm/\S+") == link
    assert find_link(tmp_path, r"http://elsewhere/\S+") is None


# --- what it shows ---


@pytest.fixture
def delivered_request(db):
    start = timezone.now()
    request = ClassifierRequest.create(
        class_queries=[("mammal", ""), ("plant", "")], email="a@example.org"
    )
    ClassifierRequest.objects.filter(pk=request.pk).update(created=start, status=Status.DELIVERED)
    for seconds, status in ((2, Status.QUEUED), (3, Status.RUNNING), (20, Status.DELIVERED)):
        Event.objects.create(request=request, new=status, at=start + timedelta(seconds=seconds))
    for stage, first, last in (("collect", 3, 10), ("train", 11, 19)):
        times = {
            "started": start + timedelta(seconds=first),
            "finished": start + timedelta(seconds=last),
        }
        Job.objects.create(request=request, stage=stage, queue="train", state="done", **times)
    request.refresh_from_db()
    return request


def test_the_seconds_of_the_stages_and_of_the_waiting_add_up_to_the_total(delivered_request):
    seconds = outcome.stage_seconds(delivered_request)
    assert seconds == pytest.approx(
        {"confirm": 2, "collect": 7, "train": 8, "waiting": 3, "total": 20}
    )


def test_without_a_terminal_each_stage_says_once_that_it_runs_and_once_that_it_is_done(
    delivered_request,
):
    output = io.StringIO()
    display = scenario.StageDisplay(Console(file=output, force_terminal=False))
    collect = delivered_request.jobs.first()
    with display.showing():
        for state in ("queued", "running", "running", "done", "done"):
            collect.state = state
            display.update([collect])
    assert output.getvalue() == "collect: running\ncollect: done in 7.0 s\n"


def test_on_a_terminal_the_bar_of_a_stage_reaches_its_end(delivered_request):
    output = io.StringIO()
    display = scenario.StageDisplay(Console(file=output, force_terminal=True, width=120))
    collect = delivered_request.jobs.first()
    with display.showing():
        collect.state = "running"
        collect.progress = {"done": 3, "total": 76, "message": "asking Bing"}
        display.update([collect])
        assert display.bars.tasks[0].completed == 3
        assert display.bars.tasks[0].total == 76
        collect.state = "done"
        display.update([collect])
        assert display.bars.tasks[0].finished
    assert "done in 7.0 s" in output.getvalue()


def outcome_in(folder) -> outcome.Outcome:
    """What a demo in this folder shows, with the files that it names."""
    folder.mkdir()
    files = {}
    for kind in ("dataset", "model"):
        path = folder / f"{kind}.zip"
        path.touch()
        files[kind] = outcome.Delivered(
            kind=kind,
            path=str(path),
            url=f"http://127.0.0.1:9/r/token/download/{kind}/",
            bytes=1_000_000,
            sha256="a" * 64,
            folder=str(folder / kind),
        )
    model = folder / "model" / "picaisso-model"
    model.mkdir(parents=True)
    for file in (model / "try.html", model / "report.html", folder / "delivered.eml"):
        file.touch()
    return outcome.Outcome(
        verdict="better",
        verdict_sentence="This model tells the classes apart.",
        accuracy=1.0,
        interval=(0.9, 1.0),
        majority_baseline=0.5,
        split={"train": 50, "val": 10, "test": 12},
        kept={"mammal": 36, "plant": 36},
        backbone="efficientnet_lite0",
        notices=[],
        seconds={"total": 20.0},
        dataset=files["dataset"],
        model=files["model"],
        mail=str(folder / "delivered.eml"),
        page="http://127.0.0.1:9/r/token/",
        folder=str(folder),
        request_folder=str(folder / "requests" / "1"),
        picture=str(folder / "one.jpg"),
        truth="plant",
        prediction="plant",
        probabilities={"plant": 0.99, "mammal": 0.01},
    )


def test_it_ends_with_links_to_files_that_are_there_and_with_none_to_the_stopped_site(tmp_path):
    lines = list(outcome.describe(outcome_in(tmp_path / "a folder")))
    text = "\n".join(lines)
    assert "http://" not in text
    links = [word for word in text.split() if word.startswith("file://")]
    names = [Path(unquote(urlsplit(link).path)).name for link in links]
    assert names == ["delivered.eml", "report.html", "try.html"]
    assert all(Path(unquote(urlsplit(link).path)).is_file() for link in links)
    assert lines[-1].strip() == "open it in a browser and drop a picture on it"


def test_a_model_without_its_try_page_ends_the_demo_with_a_sentence(tmp_path):
    shown = outcome_in(tmp_path / "demo")
    (tmp_path / "demo" / "model" / "picaisso-model" / "try.html").unlink()
    with pytest.raises(DemoFailed, match=r"has no try\.html"):
        list(outcome.describe(shown))


# Waits as the demo does at its end; the site is a process that runs for so many seconds.
WAITING = """
import sys, types
from pathlib import Path
import django
django.setup()
from requests_app.demo import scenario
processes = scenario.ChildProcesses(Path(sys.argv[1]), limit_seconds=60)
processes.start("site", ["-c", f"import time; time.sleep({sys.argv[2]})"], {})
if scenario.somebody_watches():
    outcome = types.SimpleNamespace(page="http://127.0.0.1:9/r/token/")
    scenario.keep_until_enter(processes, outcome)
processes.stop()
print("the end")
"""


@contextmanager
def waiting(folder, *, site_seconds, **extra):
    """A process that waits at a terminal, and what a person types into and reads from."""
    keyboard, screen = pty.openpty()
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **extra}
    if "CI" not in extra:
        variables.pop("CI", None)
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(folder), str(site_seconds)],
        env=variables,
        cwd=ROOT,
        stdin=screen,
        stdout=screen,
        stderr=screen,
    )
    try:
        yield process, keyboard
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
        os.close(screen)


def read_until(terminal, words, seconds=60):
    shown = ""
    end = time.monotonic() + seconds
    while words not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096).decode()
    assert words in shown
    return shown


def test_on_a_terminal_the_site_runs_until_enter_is_pressed(tmp_path):
    with waiting(tmp_path, site_seconds=600) as (process, terminal):
        shown = read_until(terminal, "until you press Enter")
        assert "http://127.0.0.1:9/r/token/" in shown
        time.sleep(0.5)
        assert process.poll() is None
        os.write(terminal, b"\n")
        read_until(terminal, "the end")
        assert process.wait(30) == 0


def test_a_site_that_ends_by_itself_is_not_waited_for(tmp_path):
    with waiting(tmp_path, site_seconds=0) as (_, terminal):
        read_until(terminal, "The site ended by itself with exit code 0.")


def test_in_continuous_integration_nothing_waits_even_at_a_terminal(tmp_path):
    with waiting(tmp_path, site_seconds=600, CI="true") as (process, terminal):
        shown = read_until(terminal, "the end")
        assert "Enter" not in shown
        assert process.wait(30) == 0


def test_in_a_pipe_nothing_waits(tmp_path):
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    variables.pop("CI", None)
    command = [sys.executable, "-c", WAITING, str(tmp_path), "600"]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, input="", capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "the end\n"


def test_the_probabilities_that_predict_py_prints_are_read_back():
    printed = "some/picture.jpg\n   97.3%  sea lion\n    2.7%  plant\n"
    assert outcome.read_probabilities(printed) == pytest.approx({"sea lion": 0.973, "plant": 0.027})


def test_output_without_probabilities_ends_the_demo():
    with pytest.raises(DemoFailed, match="printed no probabilities"):
        outcome.read_probabilities("nothing\n")
