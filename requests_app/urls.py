"""Paths of the web (product.md section 5). The name of a path is what ``reverse`` is called
with.
"""

from django.urls import path

from requests_app import views

urlpatterns = [
    path("", views.home, name="home"),
    path("robots.txt", views.robots, name="robots"),
    path("favicon.ico", views.favicon, name="favicon"),
    path("confirm/<str:signed>/", views.confirm, name="confirm"),
    path("r/<str:token>/", views.request_page, name="request"),
    path("r/<str:token>/progress/", views.progress, name="progress"),
    path("r/<str:token>/cancel/", views.cancel, name="cancel"),
    path("r/<str:token>/retry/", views.retry, name="retry"),
    path("r/<str:token>/delete/", views.delete, name="delete"),
    path("r/<str:token>/images/<int:pk>.jpg", views.thumbnail, name="thumbnail"),
    path("r/<str:token>/download/<slug:kind>/", views.download, name="download"),
]
