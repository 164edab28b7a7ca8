"""The first page: what is typed, what is answered beside which field, and what comes of it."""

import re
import unicodedata

import pytest

from requests_app import mail
from requests_app.models import ClassifierRequest, OutgoingMail
from tests.web.conftest import post

GOOD = {"classes": ["corgi", "shiba inu"], "email": "ada@example.org"}
# a flag spelt in tag characters
SCOTLAND = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
OPTIONS = {"queries": ["", ""], "images_per_class": "100", "license": "any", "backbone": "resnet50"}


def complaints(page: str) -> dict[str, str]:
    """field id -> the sentence that stands beside it."""
    pattern = r'<p class="complaint" id="(\w+)_error">\s*(.*?)\s*</p>'
    return dict(re.findall(pattern, page, re.DOTALL))


def test_the_page_is_there(client):
    response = client.get("/")
    assert response.status_code == 200
    assert (
        response.content.count(b'name="classes"') == 3
    )  # two rows, and the one that "add a class" copies
    assert b"autofocus" not in response.content


def test_a_good_form_makes_a_request_and_goes_to_its_page(holder):
    response = post(holder, "/", **GOOD, **OPTIONS)
    classifier = ClassifierRequest.objects.get()
    assert (response.status_code, response.headers["Location"]) == (303, f"/r/{classifier.token}/")
    assert [(c.name, c.query) for c in classifier.classes.all()] == [
        ("corgi", "corgi"),
        ("shiba inu", "shiba inu"),
    ]
    assert (classifier.email, classifier.images_per_class, classifier.license) == (
        "ada@example.org",
        100,
        "any",
    )
    assert classifier.status == "unconfirmed"
    assert OutgoingMail.objects.get().to == "ada@example.org"


def test_the_options_are_optional_for_programs(holder):
    assert post(holder, "/", **GOOD).status_code == 303


def test_every_option_arrives(holder):
    options = {
        "queries": ["", "shiba inu dog"],
        "images_per_class": "38",
        "license": "open",
        "backbone": "resnet18",
    }
    assert post(holder, "/", **{**GOOD, **options}).status_code == 303
    classifier = ClassifierRequest.objects.get()
    assert (classifier.images_per_class, classifier.license, classifier.backbone) == (
        38,
        "open",
        "resnet18",
    )
    assert [c.query for c in classifier.classes.all()] == ["corgi", "shiba inu dog"]


def test_empty_extra_rows_are_ignored(holder):
    assert (
        post(holder, "/", **{**GOOD, "classes": ["", "corgi", "  ", "shiba inu", ""]}).status_code
        == 303
    )
    assert [c.name for c in ClassifierRequest.objects.get().classes.all()] == ["corgi", "shiba inu"]


def test_names_are_kept_in_normal_form_c_without_outer_spaces(holder):
    post(holder, "/", classes=[" cafe\u0301 ", "狗", "🐶🏽"], email="ada@example.org")
    classifier = ClassifierRequest.objects.get()
    names = [image_class.name for image_class in classifier.classes.all()]
    assert names == ["café", "狗", "🐶🏽"]
    for name in names:
        assert unicodedata.is_normalized("NFC", name)


@pytest.mark.parametrize(
    ("typed", "kept"),
    {
        "c\u200bat": "cat",
        "\ufeffcat": "cat",
        "c\u00adat": "cat",
        "cat\u2060": "cat",
        "c\u200dat": "cat",  # a joiner joins nothing between Latin letters
        "cat\u3164": "cat",
        "cat\U000e0063\U000e0061": "cat",
        "shiba \u00a0 inu": "shiba inu",
        "\u2003shiba\u2002inu ": "shiba inu",
        "shiba \u200b inu": "shiba inu",
        "👩\u200d🔬": "👩\u200d🔬",
        "👨\u200d👩\u200d👧": "👨\u200d👩\u200d👧",
        "👩🏽\u200d🚀": "👩🏽\u200d🚀",
        "❤\ufe0f\u200d🔥": "❤\ufe0f\u200d🔥",
        SCOTLAND: SCOTLAND,
        "می\u200cخواهم": "می\u200cخواهم",
        "क्\u200dष": "क्\u200dष",
    }.items(),
    ids=ascii,
)
def test_what_nobody_sees_is_left_out_of_names_and_what_shapes_them_stays(holder, typed, kept):
    response = post(holder, "/", classes=[typed, "dog"], email="ada@example.org")
    assert response.status_code == 303
    classifier = ClassifierRequest.objects.get()
    assert classifier.classes.first().name == kept


@pytest.mark.parametrize(
    "pair",
    [("👩\u200d🔬", "👩🔬"), ("می\u200cخواهم", "میخواهم"), ("shiba inu", "shibainu")],
    ids=ascii,
)
def test_names_that_look_different_are_two_classes(holder, pair):
    assert post(holder, "/", classes=list(pair), email="ada@example.org").status_code == 303


BAD = {
    "no class": ({"classes": ["", ""]}, "id_classes_0", "Name this class"),
    "one class only": ({"classes": ["corgi", ""]}, "id_classes_1", "second class"),
    "one class, no empty row": ({"classes": ["corgi"]}, "id_classes_1", "second class"),
    "equal": (
        {"classes": ["corgi", "corgi"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for case and spaces": (
        {"classes": ["Cat", " cat "]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal after folding": (
        {"classes": ["Straße", "STRASSE"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal after composing": (
        {"classes": ["é", "e\u0301"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal, not neighbours": (
        {"classes": ["a", "b", "A"]},
        "id_classes_2",
        "Classes 1 and 3 have the same name.",
    ),
    "equal but for a zero-width space": (
        {"classes": ["cat", "cat\u200b"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a byte order mark": (
        {"classes": ["\ufeffcat", "cat"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a soft hyphen": (
        {"classes": ["cat", "c\u00adat"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a word joiner": (
        {"classes": ["cat", "c\u2060at"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a joiner": (
        {"classes": ["cat", "ca\u200dt"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a joiner at the end": (
        {"classes": ["🐶", "🐶\u200d"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for a selector": (
        {"classes": ["cat", "cat\ufe0f"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for two spaces": (
        {"classes": ["shiba inu", "shiba  inu"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "equal but for another space": (
        {"classes": ["shiba inu", "Shiba\u00a0inu"]},
        "id_classes_1",
        "Classes 1 and 2 have the same name.",
    ),
    "65 characters": ({"classes": ["corgi", "x" * 65]}, "id_classes_1", "At most 64"),
    "NUL": ({"classes": ["corgi", "a\0b"]}, "id_classes_1", "control characters"),
    "line break": ({"classes": ["corgi", "a\nb"]}, "id_classes_1", "control characters"),
    "escape": ({"classes": ["corgi", "a\x1b[0m"]}, "id_classes_1", "control characters"),
    "turned reading direction": (
        {"classes": ["corgi", "abc\u202egnp"]},
        "id_classes_1",
        "reading direction",
    ),
    "isolate": ({"classes": ["corgi", "\u2066abc"]}, "id_classes_1", "reading direction"),
    "nothing visible": (
        {"classes": ["corgi", "\u200b\u200d"]},
        "id_classes_1",
        "no visible character",
    ),
    "an empty pattern": (
        {"classes": ["corgi", "\u2800\ufe0f"]},
        "id_classes_1",
        "no visible character",
    ),
    "eleven": ({"classes": [str(i) for i in range(11)]}, "id_classes_10", "At most 10"),
    "query without a name": (
        {"classes": ["a", "b", ""], "queries": ["", "", "c"]},
        "id_classes_2",
        "Name this",
    ),
    "long query": ({"queries": ["", "q" * 201]}, "id_queries_1", "At most 200"),
    "query with a tab": ({"queries": ["a\tb", ""]}, "id_queries_0", "control characters"),
    "no address": ({"email": ""}, "id_email", "Type the address"),
    "not an address": ({"email": "ada"}, "id_email", "not a complete e-mail address"),
    "localhost": ({"email": "a@localhost"}, "id_email", "not a complete e-mail address"),
    "domain without a dot": ({"email": "a@intranet"}, "id_email", "not a complete e-mail address"),
    "literal address": ({"email": "a@[127.0.0.1]"}, "id_email", "not a complete e-mail address"),
    "255 characters": (
        {"email": "a@" + "b" * 60 + ".example" * 25 + ".org"},
        "id_email",
        "at most 254",
    ),
    "very long address": (
        {"email": "a@" + "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) + ".org"},
        "id_email",
        "at most 254 characters",
    ),
    "one letter after the last dot": (
        {"email": "john@example.c"},
        "id_email",
        "not a complete e-mail address",
    ),
    "two addresses": ({"email": "a@example.org, b@example.org"}, "id_email", "just one address"),
    "two addresses, no comma": (
        {"email": "a@example.org b@example.org"},
        "id_email",
        "just one address",
    ),
    "name and address": (
        {"email": "Ada <ada@example.org>"},
        "id_email",
        "not a complete e-mail address",
    ),
    "quoted name": ({"email": '"a,b"@example.org'}, "id_email", "not a complete e-mail address"),
    "header injection": (
        {"email": "a@example.org\r\nBcc: b@example.org"},
        "id_email",
        "not a complete e-mail address",
    ),
    "line break at the end": (
        {"email": "a@example.org\r\n"},
        "id_email",
        "not a complete e-mail address",
    ),
    "NUL in the address": (
        {"email": "a\0@example.org"},
        "id_email",
        "not a complete e-mail address",
    ),
    "domain too long when encoded": (
        {"email": "a@" + 62 * "ä" + ".org"},
        "id_email",
        "Mail cannot reach",
    ),
    "address too long when encoded": (
        {"email": "a" * 64 + "@" + "ä." * 35 + "org"},
        "id_email",
        "at most 254",
    ),
    "a domain that would become another": (
        {"email": "a@straße.example"},
        "id_email",
        "Mail cannot reach",
    ),
    "a domain with another letter in a circle": (
        {"email": "a@ⓔxample.org"},
        "id_email",
        "Mail cannot reach",
    ),
    "letters that only newer servers take": (
        {"email": "jürgen@example.org"},
        "id_email",
        "accented letters before the @",
    ),
    "a sign in a circle": (
        {"email": "a@ex🐶mple.org"},
        "id_email",
        "not a complete e-mail address",
    ),
    "65 characters before the @": (
        {"email": "a" * 65 + "@example.org"},
        "id_email",
        "64 before the @",
    ),
    "very many pictures": ({"images_per_class": "9" * 5000}, "id_images_per_class", "20 to 500"),
    "too few pictures": ({"images_per_class": "19"}, "id_images_per_class", "20 to 500"),
    "too many pictures": ({"images_per_class": "501"}, "id_images_per_class", "20 to 500"),
    "half a picture": ({"images_per_class": "30.5"}, "id_images_per_class", "20 to 500"),
    "no number": ({"images_per_class": "many"}, "id_images_per_class", "20 to 500"),
    "unknown licence": ({"license": "stolen"}, "id_license", "licences offered"),
    "unknown network": ({"backbone": "gpt"}, "id_backbone", "networks offered"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_beside_its_field(holder, case):
    fields, field, sentence = BAD[case]
    response = post(holder, "/", **{**GOOD, **OPTIONS, **fields})
    page = response.content.decode()
    assert response.status_code == 400
    assert sentence in complaints(page)[field]
    control = re.search(rf'<(input|select)[^>]*id="{field}"[^>]*>', page).group(0)
    assert 'aria-invalid="true"' in control
    assert f"{field}_error" in control  # aria-describedby names the complaint
    assert not ClassifierRequest.objects.exists()
    assert not OutgoingMail.objects.exists()


def test_everything_typed_is_kept(holder):
    fields = {
        "classes": ["corgi", "<b>&", "cat"],
        "queries": ["dog", "", "x"],
        "email": "no",
        "images_per_class": "7",
    }
    page = post(holder, "/", **fields, license="open", backbone="resnet18").content.decode()
    assert re.findall(r'name="classes"[^>]*value="(.*?)"', page) == [
        "corgi",
        "&lt;b&gt;&amp;",
        "cat",
        "",
    ]
    assert re.findall(r'name="queries"[^>]*value="(.*?)"', page) == ["dog", "", "x", ""]
    assert 'value="no"' in page
    assert 'value="7"' in page
    assert '<option value="open" selected>' in page
    assert '<option value="resnet18" selected>' in page


def test_the_first_complaint_has_the_focus_and_a_summary_names_all(holder):
    page = post(holder, "/", classes=["a", "a"], email="no", images_per_class="7").content.decode()
    assert page.count("autofocus") == 1
    assert "autofocus" in re.search(r'<input[^>]*id="id_classes_1"[^>]*>', page).group(0)
    summary = re.search(r'role="alert".*?</div>', page, re.DOTALL).group(0)
    assert re.findall(r'href="#(\w+)"', summary) == [
        "id_classes_1",
        "id_email",
        "id_images_per_class",
    ]
    assert "<details" in page
    assert re.search(r'<details class="options" open>', page)  # the field in question can be seen


def test_the_address_has_the_focus_when_only_it_is_wrong(holder):
    page = post(holder, "/", **{**GOOD, "email": "no"}).content.decode()
    assert "autofocus" in re.search(r'<input[^>]*id="id_email"[^>]*>', page).group(0)


def test_a_class_is_added_without_scripts(holder):
    response = post(holder, "/", **{**GOOD, **OPTIONS, "license": "open"}, add="1")
    page = response.content.decode()
    assert response.status_code == 200
    assert re.findall(r'name="classes" id="(\w+)" value="(.*?)"', page)[:3] == [
        ("id_classes_0", "corgi"),
        ("id_classes_1", "shiba inu"),
        ("id_classes_2", ""),
    ]
    assert "autofocus" in re.search(r'<input[^>]*id="id_classes_2"[^>]*>', page).group(0)
    assert 'value="ada@example.org"' in page
    assert '<option value="open" selected>' in page
    assert complaints(page) == {}


def test_a_class_is_removed_without_scripts(holder):
    page = post(
        holder, "/", classes=["a", "b", "c", "d"], queries=["", "", "x", "y"], remove="2"
    ).content.decode()
    assert re.findall(r'name="classes"[^>]*value="(.*?)"', page)[:3] == ["a", "b", "d"]
    assert re.findall(r'name="queries"[^>]*value="(.*?)"', page)[:3] == ["", "", "y"]


@pytest.mark.parametrize("row", ["9" * 5000, "-1", "²", "٣", "x", ""], ids=lambda row: row[:5])
def test_a_row_that_is_not_there_cannot_be_removed(holder, row):
    response = post(holder, "/", classes=["a", "b", "c"], remove=row)
    assert response.status_code == 200
    assert re.findall(r'name="classes"[^>]*value="(.*?)"', response.content.decode())[:3] == [
        "a",
        "b",
        "c",
    ]


def test_a_domain_in_other_letters_gets_its_mail(holder, mailoutbox, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert post(holder, "/", **{**GOOD, "email": "ada@Müller.example"}).status_code == 303
    assert mail.send_waiting() == 1
    assert mailoutbox[0].message()["To"] == "ada@xn--mller-kva.example"


@pytest.mark.parametrize(
    "address", ["ada@mail.corp.local", "o'neil+x@example.test", "ada@xn--mller-kva.example"]
)
def test_addresses_that_only_look_odd_are_taken(holder, address):
    assert post(holder, "/", **{**GOOD, "email": address}).status_code == 303
    assert ClassifierRequest.objects.get().email == address


def test_not_more_than_ten_rows_are_offered(holder):
    page = post(holder, "/", classes=[str(i) for i in range(10)], add="1").content.decode()
    assert page.count('name="classes"') == 11  # ten and the template
    assert re.search(r"<button[^>]*data-add disabled>", page)


def test_a_form_without_the_token_of_its_page_does_nothing(holder):
    response = holder.post("/", GOOD)
    assert response.status_code == 403
    assert b"Your session expired" in response.content
    assert not ClassifierRequest.objects.exists()


def test_other_methods_are_refused(client):
    response = client.put("/")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert b"That does not work here" in response.content
