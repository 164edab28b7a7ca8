"""Write `requirements.lock`: every package that requirements.txt brings, with version and hashes.

    python scripts/lock.py           asks the package index and writes the file
    python scripts/lock.py --check   fails where the file does not agree with requirements.txt

The check needs no network: the lock names the digest of the requirements it was made from.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
LOCK = ROOT / "requirements.lock"
PYTHON = "3.11"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)
HEADER = """\
# Every package of requirements.txt and what it needs, with hashes, for Python 3.11 and later.
# Install: pip install --require-hashes -r requirements.lock
# Made by: python scripts/lock.py
# Made from requirements: sha256 {digest}
"""


def requirement_lines(text: str) -> list[str]:
    """Return the requirements without comments and blank lines."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def header() -> str:
    lines = requirement_lines(REQUIREMENTS.read_text())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return HEADER.format(digest=digest)


def pinned(text: str) -> dict[str, str]:
    """Return the version of each pinned package, by its normalized name."""
    found = PIN.finditer(text)
    return {re.sub(r"[-_.]+", "-", pin["name"]).lower(): pin["version"] for pin in found}


def write() -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", PYTHON]
    command += ["--generate-hashes", "--no-header", "--no-annotate", REQUIREMENTS.name]
    resolved = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    LOCK.write_text(header() + resolved.stdout)


def problems() -> list[str]:
    """Return a sentence for each way in which the lock disagrees with the requirements."""
    text = LOCK.read_text()
    locked = pinned(text)
    found = []
    if not text.startswith(header()):
        found.append("requirements.lock was made from other requirements; run scripts/lock.py")
    for name, version in pinned("\n".join(requirement_lines(REQUIREMENTS.read_text()))).items():
        if locked.get(name) != version:
            found.append(f"requirements.lock has {name} {locked.get(name)}, not {version}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    if not parser.parse_args().check:
        write()
    found = problems()
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
