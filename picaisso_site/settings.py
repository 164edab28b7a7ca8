"""Settings of the site. Each is an environment variable, also read from ``.env``; the README lists
them all.
"""

import contextlib
import importlib.util
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from scraping.sources.catalogue import (
    SEARCHED,
    credential_settings,
    url_setting,
    usual_sources,
)
from training.environment import (
    EnvironmentFileError,
    machine_variables,
    proxy_variables,
    read_environment,
)
from training.networks.catalogue import DEFAULT as DEFAULT_BACKBONE

BASE_DIR = Path(__file__).resolve().parent.parent
try:
    ENVIRONMENT = read_environment(os.environ, BASE_DIR / ".env")
except EnvironmentFileError as error:
    raise ImproperlyConfigured(str(error)) from error
SETTINGS_FILE = Path(ENVIRONMENT.variables.get("PICAISSO_ENV_FILE") or BASE_DIR / ".env")
os.environ.update(ENVIRONMENT.variables)  # for the processes that the site starts


class _Settings(environ.Env):
    """The settings, with a file that cannot be read told as Django tells what is not configured."""

    ENVIRON = ENVIRONMENT

    def get_value(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().get_value(*arguments, **options)
        except EnvironmentFileError as error:
            raise ImproperlyConfigured(str(error)) from error


env = _Settings()


def _file(name: str) -> str:
    """Return the absolute path of the file that a setting names, "" where it names none."""
    value = env.str(name, "")
    return str(BASE_DIR / Path(value).expanduser()) if value else ""


def _secret_key() -> str:
    """Return the configured key, else the one in the data folder, made at the first start with
    mode 0600.
    """
    configured = env.str("PICAISSO_SECRET_KEY", "")
    if configured:
        return configured
    path = DATA_DIR / "secret_key"
    try:
        kept = path.read_text().strip() if path.exists() else ""
        return kept or _made_key(path)
    except OSError:  # check E001 says so, and nothing starts
        return secrets.token_urlsafe(64)


def _made_key(path: Path) -> str:
    """Return the key in this file, made where there is none. Raises OSError."""
    # Nobody else may look in: the folder holds addresses, and links that are keys.
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=DATA_DIR, prefix="secret_key.") as file:  # mode 0600
        file.write(secrets.token_urlsafe(64))
        file.flush()
        os.fsync(file.fileno())
        # Of processes that start together, the first one's key counts.
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
    return path.read_text().strip()


def _can_be_written(folder: Path) -> bool:
    """Return whether the data folder, made for this user alone where there is none, is of use."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _databases() -> dict[str, dict[str, Any]]:
    default: dict[str, Any] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
    }
    if env.str("DATABASE_URL", ""):
        default = env.db("DATABASE_URL")
    if default["ENGINE"].endswith("sqlite3"):
        # Immediate transactions queue behind each other; Django's default ones fail when two of
        # them upgrade. What is deleted is overwritten in the file, not only left out of its pages.
        default["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": (
                "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA secure_delete=ON;"
            ),
        }
    elif default["ENGINE"].endswith("mysql"):
        default["OPTIONS"] = {
            "charset": "utf8mb4",
            "isolation_level": "read committed",
            "connect_timeout": 10,
        }
        default["TEST"] = {"CHARSET": "utf8mb4"}
        if MYSQL_DRIVER_MISSING:
            # Instead of an import error, check picaisso.E003 then says what to do.
            default["ENGINE"] = "django.db.backends.dummy"
    default["CONN_MAX_AGE"] = 0  # a stage may last longer than the server keeps an idle connection
    return {"default": default}


# --- folders ---
# Everything that Picaisso writes; a relative path is relative to the project.
DATA_DIR = BASE_DIR / Path(env.str("PICAISSO_DATA_DIR", "data")).expanduser()
# What is written is for this user alone; nginx needs to read it where it sends the files.
UMASK = 0o027 if env.str("PICAISSO_ACCEL_REDIRECT", "") else 0o077
# What arrives, until it is whole: beside where it then lies, so that it need only be renamed.
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "arriving"
# Weight files, for machines without the download server.
WEIGHTS_DIR = env.str("PICAISSO_WEIGHTS_DIR", "")
# Another server for the weight files; empty: torchvision's.
WEIGHTS_URL = env.str("PICAISSO_WEIGHTS_URL", "")

# --- site ---
SECRET_KEY = _secret_key()
DEBUG = env.bool("PICAISSO_DEBUG", False)
# Makes the links in mails. `manage.py up` says to its parts where it serves, unless it is given.
BASE_URL_GIVEN = bool(env.str("PICAISSO_BASE_URL", ""))
BASE_URL = env.str("PICAISSO_BASE_URL", "http://127.0.0.1:8000").rstrip("/")
_BASE = urlsplit(BASE_URL)
ALLOWED_HOSTS = env.list(
    "PICAISSO_ALLOWED_HOSTS",
    default=["localhost", "127.0.0.1", "[::1]", _BASE.hostname or "localhost"],
)
CSRF_TRUSTED_ORIGINS = [f"{_BASE.scheme}://{_BASE.netloc}"]

MYSQL_DRIVER_MISSING = (
    env.str("DATABASE_URL", "").startswith("mysql") and importlib.util.find_spec("MySQLdb") is None
)
DATABASE_URL = env.str("DATABASE_URL", "")
DATABASES = _databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "requests_app.apps.RequestsAppConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "picaisso_site.apps.StaticFiles",
    "django_htmx",
    "django_q",
    "csp",
    "ninja",
    "axes",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "requests_app.api.middleware.api_answers",
    "requests_app.views.errors.not_allowed_page",
    "requests_app.views.body_limits.refuse_large_bodies",
    "axes.middleware.AxesMiddleware",
    "requests_app.views.errors.outage_page",
]
ROOT_URLCONF = "picaisso_site.urls"
WSGI_APPLICATION = "picaisso_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
    )
]
# Who types ten wrong passwords for a name from one address waits an hour.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 1  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "requests_app.visitors.address_of"
AXES_LOCKOUT_CALLABLE = "requests_app.views.errors.locked_out"
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

SILENCED_SYSTEM_CHECKS = [
    "models.W037",  # a conditional index of the queue that MariaDB leaves out
    "security.W005",  # whether other sites of the domain must use https is the operator's word
    "security.W021",
]

# --- static files ---
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"  # filled by `manage.py up`
STATICFILES_DIRS = [
    BASE_DIR / "static",
    # What runs a model in the browser: on the try page, and inside of each try.html.
    ("onnxruntime-web", BASE_DIR / "training" / "export" / "assets" / "onnxruntime-web"),
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "picaisso_site.static_files.HashedStaticFiles"
    },
}
WHITENOISE_USE_FINDERS = True

# --- security ---
_HTTPS = _BASE.scheme == "https"
SECURE_SSL_REDIRECT = _HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # asked from beside, without the proxy
SECURE_PROXY_SSL_HEADER = None
BEHIND_PROXY = env.bool("PICAISSO_BEHIND_PROXY", False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# How many proxies of the operator's append to X-Forwarded-For; visitors.py believes so many.
PROXY_COUNT = env.int("PICAISSO_PROXY_COUNT", 1 if BEHIND_PROXY else 0)
SECURE_HSTS_SECONDS = 31_536_000 if _HTTPS else 0
# Both would bind other sites of the same domain, so the operator says them.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("PICAISSO_HSTS_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env.bool("PICAISSO_HSTS_PRELOAD", False)
SESSION_COOKIE_SECURE = _HTTPS
CSRF_COOKIE_SECURE = _HTTPS
# Request pages send no-referrer themselves: their address is the permission.
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}

# --- downloads ---
# How many one web process sends at once; the next is told to come again.
DOWNLOADS_AT_ONCE = env.int("PICAISSO_DOWNLOADS_AT_ONCE", 100)
# The internal location of an nginx in front that serves the data folder: it then sends the files.
ACCEL_REDIRECT = env.str("PICAISSO_ACCEL_REDIRECT", "")

# --- mail ---
EMAIL_IN_FOLDER = not env.str("EMAIL_URL", "")
MAIL_DIR = DATA_DIR / "mail"
if EMAIL_IN_FOLDER:
    EMAIL_BACKEND = "requests_app.mail.FolderBackend"
else:
    vars().update(env.email("EMAIL_URL"))
EMAIL_TIMEOUT = 30  # seconds
DEFAULT_FROM_EMAIL = env.str("PICAISSO_FROM_EMAIL", "Picaisso <picaisso@localhost>")
MAIL_ATTACH_MB = env.float("PICAISSO_MAIL_ATTACH_MB", 15.0)
CONFIRM_EMAIL = env.bool("PICAISSO_CONFIRM_EMAIL", True)

# --- collecting ---
KNOWN_SOURCES = SEARCHED
SOURCE_URLS = {}  # a source's name -> its base URL, for tests and mirrors
for _name in KNOWN_SOURCES:
    if _url := env.str(url_setting(_name), ""):
        SOURCE_URLS[_name] = _url
SOURCE_CREDENTIALS = {key: env.str(name, "") for key, name in credential_settings().items()}
SOURCES = env.list("PICAISSO_SOURCES", default=list(usual_sources(SOURCE_CREDENTIALS)))
ROBOTS = env.str("PICAISSO_ROBOTS", "respect")
CONTACT = env.str("PICAISSO_CONTACT", "")
LOCALE = env.str("PICAISSO_LOCALE", "en-US")
CHROME = env.str("PICAISSO_CHROME", "")
CHROMEDRIVER = env.str("PICAISSO_CHROMEDRIVER", "")
SELENIUM_REMOTE_URL = env.str("PICAISSO_SELENIUM_REMOTE_URL", "")
ALLOWED_PRIVATE_HOSTS = env.list("PICAISSO_ALLOWED_PRIVATE_HOSTS", default=[])
CLASS_POLICY = _file("PICAISSO_CLASS_POLICY")
REFUSED_DIGESTS = _file("PICAISSO_REFUSED_DIGESTS")
NUDITY_MODEL = _file("PICAISSO_NUDITY_MODEL")
MIN_SIDE = env.int("PICAISSO_MIN_SIDE", 200)  # pixels
MAX_SIDE = env.int("PICAISSO_MAX_SIDE", 1024)  # pixels
AI_MADE = env.str("PICAISSO_AI_MADE", "leave_out")  # or keep
MIN_IMAGES = env.int("PICAISSO_MIN_IMAGES", 20)  # per class; with fewer nothing is trained
COLLECT_MINUTES = env.float("PICAISSO_COLLECT_MINUTES", 30)

# --- training ---
# Whether a first model is fitted while pictures are still being collected.
FIRST_MODEL = env.bool("PICAISSO_FIRST_MODEL", True)
BACKBONE = env.str("PICAISSO_BACKBONE", DEFAULT_BACKBONE)
DEVICE = env.str("PICAISSO_DEVICE", "auto")
TEXT_IMAGE_MODEL = _file("PICAISSO_TEXT_IMAGE_MODEL")  # a folder
TRAIN_MINUTES = env.float("PICAISSO_TRAIN_MINUTES", 120)

# --- keeping ---
RETENTION_DAYS = env.int("PICAISSO_RETENTION_DAYS", 30)

# --- how much one person may ask for; 0: no limit ---
SUBMISSIONS_PER_HOUR = env.int("PICAISSO_SUBMISSIONS_PER_HOUR", 5)  # from one network
SUBMISSIONS_PER_DAY = env.int("PICAISSO_SUBMISSIONS_PER_DAY", 3)  # from one address
RUNNING_PER_ADDRESS = env.int("PICAISSO_RUNNING_PER_ADDRESS", 1)
WAITING_PER_ADDRESS = env.int("PICAISSO_WAITING_PER_ADDRESS", 2)
MAIL_MINUTES = env.float("PICAISSO_MAIL_MINUTES", 60)  # between mails that anyone can cause
MAILS_PER_DAY = env.int("PICAISSO_MAILS_PER_DAY", 3)  # of those, to one address
QUEUE_LIMIT = env.int("PICAISSO_QUEUE_LIMIT", 100)  # requests that wait for a worker
REQUEST_GB = env.float("PICAISSO_REQUEST_GB", 5)  # of files of one request
DISK_GB = env.float("PICAISSO_DISK_GB", 100)  # of files of all requests

# --- how fast lost work is noticed (seconds) ---
LEASE_SECONDS = env.float("PICAISSO_LEASE_SECONDS", 120)
BEAT_SECONDS = env.float("PICAISSO_BEAT_SECONDS", 15)
REAP_SECONDS = env.float("PICAISSO_REAP_SECONDS", 60)
STOP_SECONDS = env.float("PICAISSO_STOP_SECONDS", 30)

# --- what children inherit ---
MACHINE_VARIABLES = machine_variables(os.environ)
PROXY_VARIABLES = proxy_variables(os.environ)  # for those alone that download weights

# From the first byte of a web request to the last of its headers; a body has twice that, and more
# the larger it is.
HEADER_SECONDS = env.float("PICAISSO_HEADER_SECONDS", 15)

# Set by `manage.py up` for what it starts; nobody configures them.
CLUSTER_ID = env.str("PICAISSO_CLUSTER", "")
DIE_WITH_PARENT = env.bool("PICAISSO_DIE_WITH_PARENT", False)

# --- queue ---
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "qstat": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": DATA_DIR / "qstat",
    }
    if _can_be_written(DATA_DIR)
    else {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},  # check E001 says why
}
# django-q2 only notifies: Job rows are the record of work, so the broker delivers nothing twice.
# Each time limit is the job's own plus five minutes: the worker itself ends a job at its limit, and
# this one counts only where that fails.
Q_CLUSTER = {
    "name": "picaisso",
    "orm": "default",
    "workers": 2,  # of which a silent mail server can hold one; the other goes on
    "queue_limit": 1,
    "bulk": 1,
    "poll": 0.25,
    "timeout": 900,
    "retry": 86_400,
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "save_limit": 500,
    "recycle": 200,
    "cache": "qstat",
    "log_level": "WARNING",
    "ALT_CLUSTERS": {
        "collect": {
            "workers": 2,
            "timeout": int(COLLECT_MINUTES * 60) + 300,
            "retry": 2 * 86_400,
            "recycle": 20,
        },
        "train": {
            "workers": 1,
            "timeout": int(TRAIN_MINUTES * 60) + 300,
            "retry": 7 * 86_400,
            "recycle": 20,
        },
    },
}


def _secrets() -> tuple[str, ...]:
    """Return what no log may say, whatever asks for it to be logged."""
    of_database = str(DATABASES["default"].get("PASSWORD", ""))
    of_mail = str(globals().get("EMAIL_HOST_PASSWORD", ""))
    return (SECRET_KEY, of_database, of_mail, *SOURCE_CREDENTIALS.values())


# --- logs ---
LOG = env.str("PICAISSO_LOG", "text")  # or json
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "lines": {
            "()": "picaisso_site.redaction.RedactingFormatter",
            "as_json": LOG == "json",
            "secrets": _secrets(),
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "requests_app": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # Instead of Django's own handlers, which hide nothing.
        "django": {"handlers": [], "level": "WARNING"},
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "waitress.queue": {"level": "ERROR"},  # requests that wait for a thread are no news
        "django-q": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
