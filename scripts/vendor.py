"""Renew a vendored script: fetch it from the npm registry, copy what is served, write its manifest.

    .venv/bin/python scripts/vendor.py uplot 1.6.32

Needs npm. A test compares the files with the manifest, and the README names the version.
"""

import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Of each package: where its files lie, their paths inside the package, and their licence.
PACKAGES = {
    "uplot": {
        "folder": "static/vendor/uplot",
        "files": ["LICENSE", "dist/uPlot.iife.min.js", "dist/uPlot.min.css"],
        "licence": "MIT",
    }
}


def vendor(name: str, version: str) -> None:
    """Replace the files of a package by those of a version."""
    package = PACKAGES[name]
    folder = PROJECT / str(package["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", f"{name}@{version}", "--pack-destination", scratch]
        subprocess.run(command, check=True, capture_output=True)
        [archive] = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as opened:
            for path in package["files"]:
                member = opened.extractfile(f"package/{path}")
                assert member is not None, path
                content = member.read()
                target = folder / Path(path).name
                target.write_bytes(content)
                files[target.name] = {"sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "name": name,
        "version": version,
        "origin": f"the npm package {name}, by scripts/vendor.py",
        "licence": package["licence"],
        "files": files,
    }
    (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PACKAGES)
    parser.add_argument("version")
    arguments = parser.parse_args()
    vendor(arguments.name, arguments.version)
