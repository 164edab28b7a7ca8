"""Takes pictures out of a run folder for good: out of its manifest and of everything that was made
to be looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from training.export.report_images import without_pictures
from training.run_folder import ImageRow, read_manifest, write_manifest, write_text


def remove_images(run_dir: Path, files: Collection[str]) -> None:
    """Forget picture files, named as in the manifest; can be repeated.

    What the model learned from them stays in its weights; its report no longer shows them. The
    table of nearest pictures goes as a whole: it is a convenience, and made anew by the next
    training.
    """
    rows = read_manifest(run_dir)
    write_manifest(run_dir, [row for row in rows if row.file not in files])
    _forget_computed(run_dir / "checkpoints", [row for row in rows if row.file in files])
    (run_dir / "neighbours.npz").unlink(missing_ok=True)
    _forget_suspects(run_dir / "suspects.jsonl", files)
    if (run_dir / "model" / "report.html").exists():
        _forget_in_report(run_dir / "model", files)


def _forget_computed(checkpoints: Path, rows: Sequence[ImageRow]) -> None:
    """Thumbnails and decoded pixels; a run that goes on decodes the others again."""
    for row in rows:
        for entry in checkpoints.glob(f"features/*/{row.sha256[:32]}.npz"):
            entry.unlink(missing_ok=True)
    for decoded in (*checkpoints.glob("*.squares"), *checkpoints.glob("*.done")):
        decoded.unlink(missing_ok=True)


def _forget_suspects(path: Path, files: Collection[str]) -> None:
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if json.loads(line)["file"] not in files))


def _forget_in_report(model: Path, files: Collection[str]) -> None:
    """The report first and its checksum after it: repeated after a crash, both are right."""
    report, sums = model / "report.html", model / "SHA256SUMS"
    write_text(report, without_pictures(report.read_text(encoding="utf-8"), files))
    digest = hashlib.sha256(report.read_bytes()).hexdigest()
    lines = sums.read_text(encoding="utf-8").splitlines()
    kept = [
        f"{digest}  {report.name}" if line.endswith(f"  {report.name}") else line for line in lines
    ]
    write_text(sums, "".join(f"{line}\n" for line in kept))
