"""Limits as a stranger meets them: a real server, many forms at once, mails as they are sent."""

import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import TypeVar

import pytest

from requests_app.demo.visitor import HiddenFields, Visitor
from requests_app.workers.processes import PROJECT
from tests.system.mariadb import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

T = TypeVar("T")
FIELDS = [("classes", "corgi"), ("classes", "shiba inu")]
AT_ONCE = 8


@dataclass
class Front:
    """A site that takes forms and sends mails; nobody works on what is asked for."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self, sql: str) -> list[tuple]:
        with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=20)) as database:
            found = database.execute(sql).fetchall()
            database.commit()
            return found

    @property
    def mails(self) -> list[Message]:
        files = sorted((self.folder / "mail").glob("*.eml"))
        return [message_from_bytes(file.read_bytes()) for file in files]

    def forget(self) -> None:
        """Begin anew, without starting another site."""
        for name in ("outgoingmail", "job", "event", "imageclass", "idempotencykey", "allowance"):
            self.rows(f"delete from requests_app_{name}")
        self.rows("delete from requests_app_classifierrequest")
        for file in (self.folder / "mail").glob("*.eml"):
            file.unlink()


class Person:
    """A browser with the first page open, which sends its form again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        jar = urllib.request.HTTPCookieProcessor()
        self.browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar, Stay())
        with self.browser.open(url, timeout=120) as page:
            hidden = HiddenFields(page.read().decode()).fields
        self.csrf = hidden["csrfmiddlewaretoken"]
        self.form = hidden["form_token"]

    def send(self, fields: list[tuple[str, str]], **headers: str) -> tuple[int, str]:
        """Return the status of the answer and where it leads."""
        body = urllib.parse.urlencode([("csrfmiddlewaretoken", self.csrf), *fields]).encode()
        try:
            request = urllib.request.Request(self.url, body, headers)
            with self.browser.open(request, timeout=120) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location", "")


class Stay(urllib.request.HTTPRedirectHandler):
    """Shows where an answer leads, and does not go there."""

    def redirect_request(self, *arguments, **options):
        return None


@pytest.fixture(scope="module")
def running_front(tmp_path_factory) -> Iterator[Front]:
    found = Front(tmp_path_factory.mktemp("abuse") / "data", free_port())
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PICAISSO_", "DJANGO_"))
    }
    own |= {
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(found.folder),
        "PICAISSO_BASE_URL": found.url,
        "PICAISSO_REAP_SECONDS": "1",
        "EMAIL_URL": "",
        "DATABASE_URL": "",
    }
    command = [sys.executable, "manage.py", "up", "--port", str(found.port)]
    command += ["--only", "web,picaisso"]
    up = subprocess.Popen(command, cwd=PROJECT, env=own)
    try:
        wait_until(lambda: answers(found.url), 60)
        yield found
    finally:
        up.terminate()
        up.wait(40)


@pytest.fixture
def front(running_front) -> Front:
    running_front.forget()
    return running_front


def answers(url: str) -> bool:
    try:
        return bool(Visitor(url).page("/"))
    except OSError:
        return False


def wait_until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def each(front: Front, count: int, send: Callable[[Person, int], T]) -> list[T]:
    """Have so many forms sent by some people at once; return what came of each."""
    people = [Person(front.url) for _ in range(AT_ONCE)]

    def of_one(start: int) -> list[T]:
        return [send(people[start], number) for number in range(start, count, AT_ONCE)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [one for some in pool.map(of_one, range(AT_ONCE)) for one in some]


def test_f28_a_thousand_forms_of_one_person_make_three_requests_and_one_mail(front):
    spellings = ("ada@example.org", "a.d.a@example.org", "ada+{n}@example.org", "ADA@EXAMPLE.org")

    def send(person: Person, number: int) -> int:
        email = spellings[number % 4].format(n=number)
        forged = {"X-Forwarded-For": f"198.51.{number % 250}.{number // 250}"}
        return person.send([*FIELDS, ("kind", f"dog {number}"), ("email", email)], **forged)[0]

    assert Counter(each(front, 1000, send)) == {303: 3, 429: 997}
    assert front.rows("select distinct status from requests_app_classifierrequest") == [
        ("unconfirmed",)
    ]
    wait_until(lambda: bool(front.mails), 20)
    time.sleep(2)  # a round more
    assert len(front.mails) == 1
    times = front.rows("select count(distinct not_before) from requests_app_outgoingmail")
    assert times == [(3,)]


def test_f28_one_network_is_counted_whatever_it_says_of_itself(front):
    def send(person: Person, number: int) -> int:
        fields = [*FIELDS, ("email", f"person{number}@example.org")]
        return person.send(fields, **{"X-Forwarded-For": f"198.51.100.{number}"})[0]

    assert Counter(each(front, 40, send)) == {303: 5, 429: 35}


def test_f28_a_filled_form_that_is_sent_sixty_times_at_once_is_one_request(front):
    form = Person(front.url).form
    fields = [*FIELDS, ("email", "ada@example.org"), ("form_token", form)]
    led_to = set(each(front, 60, lambda person, _: person.send(fields)))
    assert len(led_to) == 1
    ((status, place),) = led_to
    assert status == 303
    assert place.startswith("/r/")
    assert front.rows("select count(*) from requests_app_outgoingmail") == [(1,)]


def test_f28_a_link_that_is_only_opened_starts_nothing(front):
    Person(front.url).send([*FIELDS, ("email", "ada@example.org")])
    wait_until(lambda: bool(front.mails), 20)
    text = front.mails[0].get_payload()[0].get_payload(decode=True).decode()
    link = next(word for word in text.split() if "/confirm/" in word)
    for _ in range(3):
        assert "Yes, start" in Visitor(front.url).page(link)
    assert front.rows("select status from requests_app_classifierrequest") == [("unconfirmed",)]
    assert front.rows("select count(*) from requests_app_job") == [(0,)]
    Visitor(front.url).send_form(link)
    assert front.rows("select status from requests_app_classifierrequest") == [("queued",)]
