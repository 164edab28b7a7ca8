"""The page that says what is stored, and the download that gives it."""

import json

from django.utils.html import escape

from requests_app import privacy
from tests.web.conftest import delivered, page_of


def test_the_page_says_each_line_for_how_long_and_what_remains(client, settings):
    settings.RETENTION_DAYS = 12
    page = client.get("/privacy/").content.decode()
    for line in privacy.STORED:
        assert str(escape(line.what)) in page and line.until in page
    assert all(each in page for each in privacy.REMAINS)
    assert "deleted 12 days after its last change" in page
    assert 'href="/privacy/"' in client.get("/").content.decode()


def test_the_holder_of_a_link_downloads_what_is_stored(holder):
    classifier = delivered("owl", "fox")
    assert f"/r/{classifier.token}/stored/" in page_of(holder, classifier)
    answer = holder.get(f"/r/{classifier.token}/stored/")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "no-store" in answer.headers["Cache-Control"]
    document = json.loads(answer.content)
    assert document["request"]["email"] == "ada@example.org"
    assert {row["name"] for row in document["classes"]} == {"owl", "fox"}
