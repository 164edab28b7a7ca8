"""Routes of the site: the admin and everything of requests_app."""

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import include, path, re_path


def nothing(request: HttpRequest) -> HttpResponse:
    """Answer where the admin would lead from a row to its page: whose address is the permission."""
    raise Http404


urlpatterns = [
    re_path("^admin/r/", nothing),
    path("admin/", admin.site.urls),
    path("", include("requests_app.urls")),
]

handler400 = "requests_app.views.errors.bad_request"
handler403 = "requests_app.views.errors.permission_denied"
handler404 = "requests_app.views.errors.page_not_found"
handler500 = "requests_app.views.errors.server_error"
