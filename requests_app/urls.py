"""Paths of the web (product.md section 5). The name of a path is what ``reverse`` is called
with.
"""

from django.urls import path

from requests_app.views import requests

urlpatterns = [
    path("", requests.home, name="home"),
    path("robots.txt", requests.robots, name="robots"),
    path("favicon.ico", requests.favicon, name="favicon"),
    path("confirm/<str:signed>/", requests.confirm, name="confirm"),
    path("r/<str:token>/", requests.request_page, name="request"),
    path("r/<str:token>/progress/", requests.progress, name="progress"),
    path("r/<str:token>/cancel/", requests.cancel, name="cancel"),
    path("r/<str:token>/retry/", requests.retry, name="retry"),
    path("r/<str:token>/delete/", requests.delete, name="delete"),
    path("r/<str:token>/images/<int:pk>.jpg", requests.thumbnail, name="thumbnail"),
    path("r/<str:token>/download/<slug:kind>/", requests.download, name="download"),
]
