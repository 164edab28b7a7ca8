"""The Django app: in a process of ``manage.py up`` it makes that process die with its parent."""

from django.apps import AppConfig
from django.conf import settings


class RequestsAppConfig(AppConfig):
    name = "requests_app"
    verbose_name = "Requests"

    def ready(self) -> None:
        from picaisso_site import checks  # noqa: F401  (registers the system checks)

        if settings.DIE_WITH_PARENT:
            from requests_app.workers import processes

            processes.die_with_parent()
            processes.forks_die_with_parent()
