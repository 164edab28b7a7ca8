"""Settings from environment variables, a `.env` file, and files that a `NAME_FILE` variable names.

Both command lines and the site read their settings here, so that all three accept the same. The
syntax is that of django-environ. Besides `duplicates` this is the one module that `scraping`
imports from here: the libraries share nothing else.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

ENV_FILE = "PICAISSO_ENV_FILE"
# What a program needs to know of the machine: where things are, in which language, which devices
# and how many threads. Nothing of what somebody configures for a program, which may be secret.
# fmt: off
MACHINE = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
    "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONUNBUFFERED",
    "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONFAULTHANDLER",
    # of Windows, where the libraries run too
    "TEMP", "TMP", "PATHEXT", "COMSPEC", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "USERPROFILE",
    "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)",
    "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
})
# fmt: on
MACHINE_PREFIXES = (
    *("LC_", "LD_", "XDG_", "FONTCONFIG_", "CHROMIUM_FLAGS", "CHROME_DEVEL_SANDBOX"),
    *("CUDA_", "NVIDIA_", "NCCL_", "CUBLAS_", "CUDNN_", "HIP_", "ROCR_", "HSA_", "PYTORCH_"),
    *("TORCH_HOME", "TORCH_NUM_THREADS", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("VECLIB_", "GLIBC_", "MALLOC_", "ORT_DISABLE_TELEMETRY"),
)
JOB_MARKS = frozenset(f"PICAISSO_{name}" for name in ("HOME", "BOOT", "JOB", "PART", "REQUEST"))
# Through which the weights are downloaded where a machine has no other way out; they may hold a
# password.
PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_ASSIGNMENT = re.compile(r"(?:export )?([A-Za-z_0-9]+)=(.*)")
_SINGLE_QUOTED = re.compile(r"'(.*)'")
_DOUBLE_QUOTED = re.compile(r'"(.*)"')
_DROPPED_BACKSLASH = re.compile(r"\\(?![rnt])(.)")


class EnvironmentFileError(Exception):
    """A file with settings cannot be read; the text is a sentence for the user."""


class Environment(Mapping[str, str]):
    """Settings by name. Where `NAME_FILE` is set, the value of NAME is the content of that file.

    A value that starts with `$` names another setting whose value is used. Looking a setting up
    raises KeyError where there is none, EnvironmentFileError where its file cannot be read.
    `variables` holds the plain ones, as the processes that one starts should inherit them. Reading
    all values opens every file that is named, also those meant for other programs.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self._contents: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        seen = set()
        value = self._value(name)
        while value.startswith("$"):
            seen.add(name)
            name = value.lstrip("$")
            if name in seen:
                raise KeyError(name)
            value = self._value(name)
        return value

    def __iter__(self) -> Iterator[str]:
        names = set(self.variables)
        names |= {name.removesuffix("_FILE") for name in names}
        return iter(sorted(names - {""}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _value(self, name: str) -> str:
        file = self.variables.get(f"{name}_FILE")
        if not file:
            return self.variables[name]
        if name not in self._contents:  # what can be read only once is asked for only once
            text = _read(Path(file), f"which {name}_FILE names")
            self._contents[name] = text.rstrip("\n")
        return self._contents[name]


def read_environment(variables: Mapping[str, str], default_file: Path) -> Environment:
    """Return the settings of the environment and of a `.env` file; the environment wins.

    The file is the one that PICAISSO_ENV_FILE names, else `default_file`, which need not exist.
    Raises EnvironmentFileError for a file that is named and missing, or that cannot be read.
    """
    variables = dict(variables)
    named_file = variables.get(ENV_FILE)
    if named_file:
        text = _read(Path(named_file), f"which {ENV_FILE} names")
        # Whoever inherits it may work in another folder.
        variables[ENV_FILE] = str(Path(named_file).absolute())
    elif named_file is None and default_file.is_file():
        text = _read(default_file, "which holds settings")
    else:
        text = ""
    return Environment(parse_dotenv(text) | variables)


def machine_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that a child may inherit whatever it works on: `MACHINE` alone."""
    return {
        name: value
        for name, value in variables.items()
        if name.upper() in MACHINE or name.startswith(MACHINE_PREFIXES)
    }


def job_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that tell whose job a process works on; no secrets."""
    return {name: value for name, value in variables.items() if name in JOB_MARKS}


def proxy_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that name a proxy."""
    return {name: value for name, value in variables.items() if name.lower() in PROXIES}


def parse_dotenv(text: str) -> dict[str, str]:
    """Return the variables of a `.env` file: lines of `NAME=value` or `export NAME=value`.

    Lines that start with `#` are comments. A value may stand in single quotes, as it is, or in
    double quotes, where a backslash is dropped unless one of r, n and t follows. Of two lines with
    one name the later counts.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        assignment = _ASSIGNMENT.fullmatch(line)
        if assignment is not None:
            name, value = assignment.groups()
            found[name] = _without_quotes(value)
        elif line.strip() and not line.startswith("#"):
            logger.warning("line %d of the settings file is not NAME=value", number)
    return found


def _without_quotes(value: str) -> str:
    single_quoted = _SINGLE_QUOTED.fullmatch(value)
    if single_quoted is not None:
        value = single_quoted[1]
    double_quoted = _DOUBLE_QUOTED.fullmatch(value)
    if double_quoted is not None:
        value = _DROPPED_BACKSLASH.sub(r"\1", double_quoted[1])
    return value


def _read(path: Path, role: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EnvironmentFileError(f"The file {path}, {role}, is not UTF-8 text.") from error
    except OSError as error:
        reason = error.strerror or "unknown error"
        raise EnvironmentFileError(f"The file {path}, {role}, cannot be read: {reason}.") from error
