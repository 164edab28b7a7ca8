"""How applications of others are set up."""

from django.contrib.staticfiles.apps import StaticFilesConfig


class StaticFiles(StaticFilesConfig):
    """Leaves out what no page asks for: compressing that would take most of a minute."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "*.js.map", "redoc*"]
