"""What belongs to the whole site: error pages, robots, static files."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.template.loader import render_to_string
from django.test import Client, override_settings
from django.urls import include, path

PROJECT = Path(__file__).resolve().parents[2]
RAISES = {"400": SuspiciousOperation, "403": PermissionDenied, "404": Http404, "500": RuntimeError}


def trouble(request, status):
    raise RAISES[status]("something that nobody outside should read")


urlpatterns = [path("trouble/<str:status>/", trouble), path("", include("picaisso_site.urls"))]
handler400 = "requests_app.views.errors.bad_request"
handler403 = "requests_app.views.errors.permission_denied"
handler404 = "requests_app.views.errors.page_not_found"
handler500 = "requests_app.views.errors.server_error"


@pytest.mark.parametrize("status", RAISES)
def test_every_error_has_a_finished_page(status):
    with override_settings(ROOT_URLCONF=__name__):
        response = Client(raise_request_exception=False).get(f"/trouble/{status}/")
    page = response.content.decode()
    assert response.status_code == int(status)
    assert "Picaisso</title>" in page
    assert f'<p class="status-code" aria-hidden="true">{status}</p>' in page
    assert "nobody outside should read" not in page
    assert "Content-Security-Policy" in response.headers


def test_the_page_for_our_own_mistakes_needs_no_database(django_assert_num_queries):
    from requests_app.views.errors import server_error

    with django_assert_num_queries(0):
        response = server_error(None)
    assert response.status_code == 500
    assert b"Something broke on our side" in response.content


@pytest.mark.parametrize("name", ["500.html", "503.html"])
def test_the_pages_that_stand_alone_link_files_that_exist(name):
    files = re.findall(r'"/static/(.*?)"', render_to_string(name))
    assert files
    for file in files:
        assert (PROJECT / "static" / file).is_file()


def test_a_host_that_is_not_ours_gets_a_finished_400():
    response = Client().get("/", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert b"This was not understood" in response.content


def test_robots_are_kept_out_of_requests(client):
    response = client.get("/robots.txt")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert {"Disallow: /r/", "Disallow: /confirm/"} <= set(response.content.decode().splitlines())


def test_the_icon_that_browsers_ask_for_leads_to_ours(client):
    assert client.get("/favicon.ico").headers["Location"] == "/static/img/favicon.svg"


def test_every_static_file_named_in_a_template_exists():
    named = set()
    for template in (PROJECT / "templates").rglob("*.html"):
        named |= set(re.findall(r"{% static '(.*?)' %}", template.read_text()))
    assert {"css/picaisso.css", "js/form.js", "js/progress.js"} <= named
    assert [file for file in named if finders.find(file) is None] == []


def test_static_files_ask_no_other_site():
    for file in (PROJECT / "static").rglob("*"):
        if file.suffix in (".css", ".js", ".svg"):
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            text = re.sub(r"/\*!.*?\*/", "", text)  # a licence names its project's address
            assert not re.search(r"https?://|@import|url\(\s*['\"]?//", text), file


@pytest.mark.parametrize("file", ["static/img/favicon.svg", "templates/_logo.svg"])
def test_the_logo_is_well_formed(file):
    root = ET.fromstring((PROJECT / file).read_text())
    assert root.tag.endswith("svg")


def test_every_style_has_its_colours_for_light_and_dark():
    css = (PROJECT / "static" / "css" / "picaisso.css").read_text()
    light, dark = re.split(r"@media \(prefers-color-scheme: dark\)", css)
    tokens = set(re.findall(r"(--[\w-]+):\s*(?:#|rgb)", light[: light.index("}")]))
    assert tokens
    assert tokens <= set(re.findall(r"(--[\w-]+):", dark[: dark.index("ground")]))
    body = css[css.index("ground") :]
    assert not re.search(
        r"#[0-9a-f]{3,8}\b", body.replace("#progress", "")
    )  # tokens alone below them
    used = set(re.findall(r"var\((--[\w-]+)", css))
    assert used <= set(re.findall(r"(--[\w-]+):", css))
