"""“Send me my links again”."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from requests_app import links
from requests_app.forms import AddressField
from requests_app.limits import LimitReached
from requests_app.visitors import address_of


class LinksForm(forms.Form):
    use_required_attribute = False

    email = AddressField(
        label="Your e-mail address",
        widget=forms.EmailInput(
            attrs={"class": "input", "autocomplete": "email", "aria-required": "true"}
        ),
        error_messages={"required": "Type the address that you gave when you made the request."},
    )


@require_http_methods(["GET", "HEAD", "POST"])
def send_links(request: HttpRequest) -> HttpResponse:
    """Take an address; the answer is the same whether it is known or not."""
    if request.method != "POST":
        return _page(request, LinksForm())
    form = LinksForm(request.POST)
    if not form.is_valid():
        return _page(request, form, 400)
    try:
        links.wish(form.cleaned_data["email"], address_of(request))
    except LimitReached as error:
        form.add_error("email", error.sentence)
        page = _page(request, form, error.status)
        page.headers["Retry-After"] = str(error.retry_after)
        return page
    return render(request, "links.html", {"is_sent": True})


def _page(request: HttpRequest, form: LinksForm, status: int = 200) -> HttpResponse:
    return render(request, "links.html", {"form": form}, status=status)
