"""Takes images out of a run folder for good: out of its manifest, and out of everything that was
made to be looked at.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from training.export.report_page import read_context, render_page, without_images, write_context
from training.judgements import JUDGEMENTS_FILE
from training.meanings import remove_from_meanings
from training.predictions import PREDICTIONS_FILE, SUSPECTS_FILE
from training.run_folder import (
    ImageRow,
    RunError,
    exclusive,
    read_manifest,
    read_result,
    write_manifest,
    write_text,
)
from training.verification import count_again, update_checksums


def remove_images(run_dir: Path, files: Collection[str]) -> None:
    """Remove image files, named as in the manifest, from a run folder; can be repeated.

    The manifest is written after all that: until then a repetition finds there what is to be
    removed.

    What the model learned from them stays in its weights, and the figures that they were measured
    on stay too; its report is rendered without them, and where a person judged them the judgements
    of the others are counted again. The table of nearest images goes as a whole: the next training
    makes it anew.
    """
    with exclusive(run_dir, wait=True):
        rows = read_manifest(run_dir)
        kept = [row for row in rows if row.file not in files]
        removed = [row for row in rows if row.file in files]
        _remove_computed(run_dir / "checkpoints", removed)
        (run_dir / "neighbours.npz").unlink(missing_ok=True)
        _remove_suspects(run_dir / SUSPECTS_FILE, files)
        remove_from_meanings(run_dir, files)
        _remove_from_report(run_dir, files)
        _remove_rows(run_dir / PREDICTIONS_FILE, files)
        _remove_rows(run_dir / JUDGEMENTS_FILE, files)
        write_manifest(run_dir, kept)
        _count_judgements_again(run_dir)


def _remove_computed(checkpoints: Path, rows: Sequence[ImageRow]) -> None:
    """Remove features and decoded pixels; a run that goes on decodes the other images again."""
    for row in rows:
        for entry in checkpoints.glob(f"features/**/{row.sha256[:32]}.npz"):
            entry.unlink(missing_ok=True)
    for pattern in ("*.squares", "*.done"):
        for path in checkpoints.glob(pattern):
            path.unlink(missing_ok=True)


def _remove_suspects(path: Path, files: Collection[str]) -> None:
    if not path.exists():
        return
    kept = []
    for line in _lines(path):
        try:
            file = json.loads(line)["file"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # a torn line tells nobody anything, and may name what is removed
        if file not in files:
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
    update_checksums(report.parent, [report.name])


def _remove_rows(path: Path, files: Collection[str]) -> None:
    """Remove the lines of a table that name one of these files.

    Nothing else is read of them, so that a damaged table does not keep an image.
    """
    if not path.exists():
        return
    kept = []
    for line in _lines(path):
        is_removed = any(file in line for file in files)
        if not is_removed:
            kept.append(line)
    write_text(path, "".join(kept))


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return text.splitlines(keepends=True)


def _count_judgements_again(run_dir: Path) -> None:
    """Write the figures again without the judgements that have gone.

    Where that cannot be done the images have gone all the same, and the figures stay.
    """
    result = read_result(run_dir)
    if result and result["ok"] and (run_dir / JUDGEMENTS_FILE).exists():
        with suppress(RunError):
            count_again(run_dir)


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
