"""The Django app: what it writes is for this user alone, it makes the folder for what arrives, and
lets a process of ``manage.py up`` die with its parent.
"""

import os
from contextlib import suppress
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings


class RequestsAppConfig(AppConfig):
    name = "requests_app"
    verbose_name = "Requests"

    def ready(self) -> None:
        from picaisso_site import checks  # noqa: F401  (registers the system checks)

        os.umask(settings.UMASK)
        with suppress(OSError):  # check E001 says why, and what to do
            Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(parents=True, exist_ok=True)
        if settings.DIE_WITH_PARENT:
            from requests_app.workers import processes

            processes.die_with_parent()
            processes.forks_die_with_parent()
