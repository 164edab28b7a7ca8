"""The page of a class's groups, and what is done with them: keep, remove, search for more."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import curation, lifecycle, meanings
from requests_app.forms import MAX_QUERY_LENGTH, words_problem
from requests_app.models import ClassifierRequest
from requests_app.text_rules import normalize, read_number
from requests_app.views.access import SeeOther, require_token
from requests_app.views.gallery import actor_of, sentence_of
from requests_app.views.meanings import questions

PLACES = ("request", "gallery", "groups")  # from which a form is sent
MOST_GROUPS = 20


@require_token
@require_safe
def groups(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show every class in groups that look alike."""
    context = {
        "classifier": classifier,
        "token": classifier.token,
        "questions": questions(classifier),
        "may_undo": classifier.decisions.filter(undone=None).exists(),
    }
    return render(request, "meanings/groups.html", context)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def decide(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Keep or remove groups of a class, accept them all, or take the last decision back."""
    if request.method != "POST":
        return SeeOther(reverse("groups", args=[classifier.token]))
    number = read_number(request.POST.get("number", ""))
    version = read_number(request.POST.get("version", ""))
    chosen = [read_number(text) for text in request.POST.getlist("group")[:MOST_GROUPS]]
    actor = actor_of(request)
    action = request.POST.get("do", "")
    decision = None
    if action == "undo":
        decision = curation.undo(classifier)
    elif action == "accept":
        if meanings.accept_all(classifier, number):
            messages.success(request, "All of them stay. You will not be asked again.")
        return _back(request, classifier)
    elif action in ("keep", "search"):
        decision = meanings.keep_groups(classifier, number, version, chosen, actor)
    elif action == "remove":
        decision = meanings.remove_groups(classifier, number, version, chosen, actor)
    if decision is None:
        messages.warning(request, "Nothing was changed: choose at least one group, but not all.")
        return _back(request, classifier)
    done = "Undone: " if action == "undo" else ""
    messages.success(request, f"{done}{sentence_of(decision)}.")
    if action == "search":
        return _search(request, classifier, number)
    return _back(request, classifier)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def fill_up(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Search a class with other words for as many pictures as it lacks."""
    if request.method != "POST":
        return SeeOther(reverse("groups", args=[classifier.token]))
    return _search(request, classifier, read_number(request.POST.get("number", "")))


def _search(request: HttpRequest, classifier: ClassifierRequest, number: int) -> HttpResponse:
    words = normalize(request.POST.get("words", ""))
    problem = words_problem(words, MAX_QUERY_LENGTH)
    if problem or not words:
        messages.warning(request, problem or "Say which words to search for.")
        return _back(request, classifier)
    image_class = classifier.classes.filter(number=number).first()
    if image_class is not None and words == image_class.search_words:
        again = f"“{words}” found what you removed. Choose other words for a new search."
        messages.warning(request, again)
        return _back(request, classifier)
    if not lifecycle.fill_up(classifier, number, words, actor_of(request)):
        messages.warning(request, "A search can begin when the work that goes on has ended.")
        return _back(request, classifier)
    return SeeOther(classifier.get_absolute_url())


def _back(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    place = request.POST.get("back", "")
    if place not in PLACES:
        place = "groups"
    return SeeOther(reverse(place, args=[classifier.token]))
