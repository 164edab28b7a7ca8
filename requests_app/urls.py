"""Paths of the web; the name of a path is what ``reverse`` is called with."""

from django.urls import path

from requests_app.views import files, requests, submission

urlpatterns = [
    path("", submission.home, name="home"),
    path("robots.txt", files.robots, name="robots"),
    path("favicon.ico", files.favicon, name="favicon"),
    path("confirm/<str:signed>/", submission.confirm, name="confirm"),
    path("r/<str:token>/", requests.request_page, name="request"),
    path("r/<str:token>/progress/", requests.progress, name="progress"),
    path("r/<str:token>/cancel/", requests.cancel, name="cancel"),
    path("r/<str:token>/retry/", requests.retry, name="retry"),
    path("r/<str:token>/delete/", requests.delete, name="delete"),
    path("r/<str:token>/images/<int:pk>.jpg", files.thumbnail, name="thumbnail"),
    path("r/<str:token>/download/<slug:kind>/", files.download, name="download"),
]
