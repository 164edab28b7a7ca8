"""Configuration of the Picaisso site: settings, system checks, URLs and the WSGI entry point."""

__version__ = "0.1.0"
