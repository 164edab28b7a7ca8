"""The groups of a class: the question, its answers, and the page that removes whole groups."""

import pytest
from django.contrib.auth.models import User

from requests_app import meanings
from requests_app.models import ClassifierRequest, ImageClass, ImageUrl, Job, Status
from tests.web.conftest import delivered, keep_picture, page_of, post, running, words
from training.meanings import ClassGroups, ImageGroup, write_meanings

WORDS = ("cat", "car", "can")
QUESTION = "“jaguar”: which do you mean?"


def group_pictures(classifier: ClassifierRequest, clear: bool = True, groups: int = 2) -> None:
    """Say that the pictures of each class fall into groups, of the first one clearly."""
    entries = []
    for image_class in classifier.classes.all():
        parts = []
        for number, word in enumerate(WORDS[:groups]):
            ranks = range(100 * number + 10, 100 * number + 20)
            files = tuple(picture(image_class, rank) for rank in ranks)
            parts.append(ImageGroup(files, (word,)))
        is_first = image_class.number == 1
        entries.append(ClassGroups(image_class.class_id, clear and is_first, tuple(parts)))
    version = classifier.versions.get()
    version.folder.mkdir(parents=True, exist_ok=True)
    write_meanings(version.folder, entries)


def picture(image_class: ImageClass, rank: int) -> str:
    """The file of a kept picture, made unless it is there."""
    image = image_class.images.filter(rank=rank).first() or keep_picture(image_class, rank)
    return image.file


def place(classifier: ClassifierRequest, path: str = "") -> str:
    return f"{classifier.get_absolute_url()}images/groups/{path}"


def decide(holder, classifier: ClassifierRequest, do: str, **fields) -> str:
    """Send a form of the groups, and return the words of the page that it leads to."""
    fields = {"number": "1", "version": "1", "back": "groups", **fields}
    response = post(holder, place(classifier, "decide/"), do=do, **fields)
    assert response.status_code == 303
    return words(holder.get(response["Location"]).content.decode())


def kept(classifier: ClassifierRequest, number: int = 1) -> int:
    images = ImageUrl.objects.of_request(classifier)
    return images.filter(image_class__number=number, state="kept", rank__gte=10).count()


@pytest.fixture
def asked() -> ClassifierRequest:
    classifier = delivered("jaguar", "plant")
    group_pictures(classifier)
    return classifier


def test_the_question_stands_on_the_request_s_page_in_the_gallery_and_with_the_groups(
    client, asked
):
    for path in ("", "images/", "images/groups/"):
        page = client.get(asked.get_absolute_url() + path).content.decode()
        assert QUESTION in words(page)
        assert "“plant”: which" not in page
        assert page.count('<label class="strip">') == 2
    assert 'data-words="jaguar cat"' in page


def test_while_it_trains_the_page_asks_too_and_nothing_waits(holder):
    classifier = running("jaguar", "plant")
    assert QUESTION not in page_of(holder, classifier)
    classifier.versions.create(number=1)
    group_pictures(classifier)
    text = words(page_of(holder, classifier))
    assert QUESTION in text and "nothing waits for your answer" in text
    assert "search for more" not in text
    text = decide(holder, classifier, "keep", group=["1"])
    assert "10 pictures of “jaguar” removed." in text
    assert "When this work has ended you can search for more here." in text
    post(holder, place(classifier, "fill-up/"), number="1", words="jaguar cat")
    classifier.refresh_from_db()
    assert (classifier.status, classifier.classes.first().query) == (Status.RUNNING, "jaguar")


def test_one_click_keeps_a_group_and_one_undo_brings_all_others_back(holder):
    classifier = delivered("jaguar", "plant")
    group_pictures(classifier, groups=3)
    text = decide(holder, classifier, "keep", group=["1", "3"])
    assert "10 pictures of “jaguar” removed." in text
    assert QUESTION not in text
    assert (kept(classifier), kept(classifier, 2)) == (20, 30)
    text = decide(holder, classifier, "undo")
    assert "Undone: 10 pictures of “jaguar” removed." in text
    assert QUESTION in text
    assert kept(classifier) == 30


def test_all_of_them_are_right_ends_the_question_for_good(holder, asked):
    assert "You will not be asked again." in decide(holder, asked, "accept")
    assert QUESTION not in words(page_of(holder, asked))
    assert (kept(asked), asked.decisions.count()) == (20, 0)


def test_a_whole_group_is_removed_where_nothing_is_asked(holder, asked):
    text = decide(holder, asked, "remove", number="2", group=["2"])
    assert "10 pictures of “plant” removed." in text
    assert kept(asked, 2) == 10
    decide(holder, asked, "remove", number="2", group=["1"])
    assert "No picture of it is left." in words(holder.get(place(asked)).content.decode())


@pytest.mark.parametrize(
    "fields",
    [
        {"do": "keep"},
        {"do": "keep", "group": ["1", "2"]},
        {"do": "keep", "group": ["7"]},
        {"do": "keep", "group": ["1"], "version": "2"},
        {"do": "remove", "group": ["x"], "number": "99999"},
        {"do": "search", "words": "jaguar cat"},
        {"do": "nonsense", "group": ["1"]},
        {"do": "undo"},
    ],
)
def test_what_names_no_groups_changes_nothing(holder, asked, fields):
    text = decide(holder, asked, **fields)
    assert "Nothing was changed" in text
    assert (kept(asked), asked.decisions.count()) == (20, 0)


def test_the_quota_is_filled_again_with_better_words(holder, asked):
    decide(holder, asked, "search", group=["1"], words=" jaguar  cat ")
    asked.refresh_from_db()
    image_class = asked.classes.get(number=1)
    assert (asked.status, image_class.query) == (Status.QUEUED, "jaguar cat")
    assert image_class.keeps_earlier and kept(asked) == 10
    assert Job.objects.latest("pk").stage == "collect"
    assert not any(found.is_asked for found in meanings.meanings_of(asked))


@pytest.mark.parametrize("typed", ["", "x" * 201, "jaguar"])
def test_words_that_help_nothing_start_no_search(holder, asked, typed):
    decide(holder, asked, "keep", group=["1"])
    text = words(page_of(holder, asked))
    assert "“jaguar” has 10 of 40 pictures left" in text
    response = post(holder, place(asked, "fill-up/"), number="1", words=typed)
    assert response.status_code == 303
    asked.refresh_from_db()
    assert asked.status == Status.DELIVERED


def test_before_there_are_groups_the_page_says_when_they_come(client):
    page = client.get(place(delivered("jaguar", "plant"))).content.decode()
    assert "No groups yet." in page


def test_what_staff_decide_has_their_name(client, asked):
    staff = User.objects.create_user("grace", is_staff=True)
    client.force_login(staff)
    fields = {"number": "1", "version": "1", "group": ["1"], "do": "keep"}
    assert client.post(place(asked, "decide/"), fields).status_code == 303
    assert asked.decisions.get().actor == "grace"


def test_a_get_of_an_action_leads_to_the_groups(client, asked):
    for action in ("decide/", "fill-up/"):
        assert client.get(place(asked, action))["Location"] == place(asked)
