"""What no class may be called, in whatever spelling, and what may although it looks so."""

import json
import os

import pytest

from picaisso_site.checks import class_policy_can_be_read
from requests_app import class_policy
from requests_app.models import ClassifierRequest
from tests.web.conftest import stopped

REFUSED = [
    "porn", "P0RN", "p-o-r-n", "p o r n", "pörn", "ｐｏｒｎ", "pоrn", "pooorn",
    "por-n", "free porno videos", "n u d e s", "naked women", "n4ked w0men", "femmes nues",
    "mujeres desnudas", "nackte Frauen", "голые женщины", "色情", "ポルノ", "포르노 사진",
    "child  p.o.r.n",
    "jailbait", "детское порно", "fake passports", "my ex-girlfriend", "my neighbour",
    "Anna Muster",
    "thomas müller", "CSAM", "hentai girl", "NSFW",
]  # fmt: skip
TAKEN = [
    "Essex", "Sussex", "Middlesex", "cocktail", "Scunthorpe", "great tit", "blue tits", "cockatoo",
    "cock-of-the-rock", "assassin bug", "naked mole-rat", "nude lipstick", "wire stripper",
    "booby", "shag", "pussy willow", "Ford Escort", "weed", "crack", "rape seed", "breast cancer",
    "bath bomb", "John Deere", "James Webb Space Telescope", "Jack Russell terrier", "Granny Smith",
    "Saint Bernard", "Peter Pan", "marie", "Anna's hummingbird", "corgi", "狗",
    "🐶", "é", "Titanic",
    "dickcissel", "Pornic", "analog clock", "sexton beetle", "virgin olive oil",
    "ヌードル", "ピエロ",
    "therapist", "grape", "swastika", "Karl Marx", "C++", "1970", "4x4", "b3 bomber", "a.b.c",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_every_spelling(name):
    assert class_policy.problem_of(name)


@pytest.mark.parametrize("name", TAKEN)
def test_what_only_looks_so_is_taken(name):
    assert class_policy.problem_of(name) == ""


FORM = {"classes": ["corgi", "shiba inu"], "email": "ada@example.org"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"classes": ["corgi", "P0RN"]}, "classes.1.name"),
        ({"classes": ["corgi", {"name": "art", "query": "naked women"}]}, "classes.1.query"),
        ({"kind": "n.u.d.e.s"}, "kind"),
        ({"classes": ["naked", "dressed"], "kind": "women"}, "classes.0.name"),
        ({"classes": ["my", "your"], "kind": "wife"}, "kind"),
    ],
)
def test_form_and_api_refuse_beside_the_same_field(client, fields, field):
    wishes = {**FORM, **fields}
    answer = client.post("/api/v1/requests", json.dumps(wishes), content_type="application/json")
    assert answer.status_code == 400
    problems = answer.json()["error"]["fields"]
    assert "does not collect" in problems[field]
    names = [each if isinstance(each, str) else each["name"] for each in wishes["classes"]]
    queries = ["" if isinstance(each, str) else each["query"] for each in wishes["classes"]]
    page = client.post("/", {**wishes, "classes": names, "queries": queries})
    assert page.status_code == 400
    assert "does not collect" in page.content.decode()
    assert ClassifierRequest.objects.count() == 0


def test_a_retry_and_a_new_search_refuse_too(client):
    classifier = stopped("failed", ("art", "photo"))
    path = classifier.get_absolute_url()
    page = client.post(f"{path}retry/", {"queries": ["naked women", ""], "numbers": ["1", "2"]})
    assert page.status_code == 400
    api = client.post(
        f"/api/v1/requests/{classifier.token}/retry",
        json.dumps({"classes": [{"name": "art", "query": "naked women"}]}),
        content_type="application/json",
    )
    assert api.status_code == 400
    client.post(f"{path}images/groups/fill-up/", {"number": "1", "words": "naked women"})
    assert set(classifier.classes.values_list("query", flat=True)) == {"art", "photo"}


def test_an_operators_file_adds_terms_and_takes_some_back_without_a_restart(tmp_path, settings):
    own = tmp_path / "terms.txt"
    own.write_text("[sexual]\n-milf\n[illegal]\nghost gun*\n[allowed]\nanna muster\n")
    settings.CLASS_POLICY = str(own)
    assert class_policy.problem_of("milf") == ""
    assert class_policy.problem_of("Gh0st-guns")
    assert class_policy.problem_of("Anna Muster") == ""
    assert class_policy.problem_of("porn")
    own.write_text("[sexual]\nclowns\n")
    os.utime(own, (1, 1))
    assert class_policy.problem_of("ghost gun") == ""
    assert class_policy.problem_of("Clowns")


def test_a_file_that_cannot_be_used_is_said_by_a_check(tmp_path, settings):
    own = tmp_path / "terms.txt"
    own.write_text("clowns\n")
    settings.CLASS_POLICY = str(own)
    (error,) = class_policy_can_be_read(None)
    assert error.id == "picaisso.E008"
    assert "line 1" in error.msg


@pytest.mark.parametrize("name", ["bikini", "young woman", "human faces", "Mädchen", "少女の絵"])
def test_people_are_searched_with_care(name):
    assert class_policy.is_careful(name)


@pytest.mark.parametrize("name", ["corgi", "mandolin", "model railway car"[6:], "kidney bean"])
def test_other_things_are_not(name):
    assert not class_policy.is_careful(name)
