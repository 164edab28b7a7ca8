"""WSGI entry point, which `requests_app/web_server.py` serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

application = get_wsgi_application()
