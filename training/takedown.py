"""Takes images out of a run folder for good: out of its manifest, and out of everything that was
made to be looked at.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from training.export.report_page import read_context, render_page, without_images, write_context
from training.run_folder import ImageRow, read_manifest, write_manifest, write_text


def remove_images(run_dir: Path, files: Collection[str]) -> None:
    """Remove image files, named as in the manifest, from a run folder; can be repeated.

    The manifest is written last: until then a repetition finds there what is to be removed.

    What the model learned from them stays in its weights; its report is rendered without them. The
    table of nearest images goes as a whole: the next training makes it anew.
    """
    rows = read_manifest(run_dir)
    kept = [row for row in rows if row.file not in files]
    removed = [row for row in rows if row.file in files]
    _remove_computed(run_dir / "checkpoints", removed)
    (run_dir / "neighbours.npz").unlink(missing_ok=True)
    _remove_suspects(run_dir / "suspects.jsonl", files)
    _remove_from_report(run_dir, files)
    write_manifest(run_dir, kept)


def _remove_computed(checkpoints: Path, rows: Sequence[ImageRow]) -> None:
    """Remove features and decoded pixels; a run that goes on decodes the other images again."""
    for row in rows:
        for entry in checkpoints.glob(f"features/*/{row.sha256[:32]}.npz"):
            entry.unlink(missing_ok=True)
    for pattern in ("*.squares", "*.done"):
        for path in checkpoints.glob(pattern):
            path.unlink(missing_ok=True)


def _remove_suspects(path: Path, files: Collection[str]) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        suspect = json.loads(line)
        if suspect["file"] not in files:
            kept.append(line)
    write_text(path, "".join(kept))


def _remove_from_report(run_dir: Path, files: Collection[str]) -> None:
    """Write the context first, then the report and its checksum: a repetition completes them."""
    context = read_context(run_dir)
    if context is not None:
        context = without_images(context, files)
        write_context(run_dir, context)
    report = run_dir / "model" / "report.html"
    if not report.exists():
        return
    if context is not None:
        page = render_page(context)
    else:
        page = _cut_from_old_page(report.read_text(encoding="utf-8"), files)
    write_text(report, page)
    _update_checksum(report)


def _update_checksum(path: Path) -> None:
    """Write the digest of a file into the SHA256SUMS beside it."""
    sums = path.with_name("SHA256SUMS")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        if line.endswith(f"  {path.name}"):
            line = f"{digest}  {path.name}"
        lines.append(f"{line}\n")
    write_text(sums, "".join(lines))


def _cut_from_old_page(page: str, files: Collection[str]) -> str:
    """Return a report of version 0.1.0, which kept no context, without these files.

    The patterns are the markup of that version and must not follow the template of today.
    """
    for file in files:
        name = re.escape(html.escape(Path(file).stem))
        digest = hashlib.sha256(file.encode()).hexdigest()[:16]
        rule = rf"\.(?:p|m\d+-){digest}\{{[^}}]*\}}\n"
        listed_credit = rf"(?m)^<li><code>{name}</code>.*\n"
        link = (
            r'<a href="[^"]*"[^>]*>Where it was found'
            rf'<span class="hidden">: picture {name}</span></a>'
        )
        page = re.sub(rule, "", page)
        page = re.sub(listed_credit, "", page)
        page = re.sub(rf"<bdi>[^<]*</bdi> {link}", "Taken down", page)
    return page
