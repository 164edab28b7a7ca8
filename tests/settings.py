"""The site's settings for tests: a data folder of their own, and nothing taken from the machine's
environment.
"""

import os
import shutil
import tempfile
from atexit import register

_PREFIX = ("PICAISSO_", "DATABASE_URL", "EMAIL_URL")
for _name in [name for name in os.environ if name.startswith(_PREFIX)]:
    del os.environ[_name]
_folder = tempfile.mkdtemp(prefix="picaisso-tests-")
register(shutil.rmtree, _folder, ignore_errors=True)
os.environ["PICAISSO_DATA_DIR"] = _folder
os.environ["PICAISSO_ENV_FILE"] = os.devnull
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from picaisso_site.settings import *  # noqa: E402, F403

STATIC_ROOT.mkdir()  # noqa: F405
STORAGES["staticfiles"] = {  # noqa: F405  (nothing is collected in tests)
    "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
}
UMASK = 0o022  # the libraries' tests run in this process too, and are a person's at a terminal
FIRST_MODEL = False  # a child for each collection; on where a test is about it
# Tests ask for more than one person may; limits are on where a test is about them.
SUBMISSIONS_PER_HOUR = SUBMISSIONS_PER_DAY = RUNNING_PER_ADDRESS = WAITING_PER_ADDRESS = 0
MAIL_MINUTES = MAILS_PER_DAY = 0
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
del os.environ["PICAISSO_DATA_DIR"]  # programs that tests start choose their own
