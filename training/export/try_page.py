"""`try.html`: one page with the model, its runtime and everything else inside, for any browser,
without a network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.explanations import colour_scale
from training.networks.catalogue import CROP

INSIDE_LIMIT = 30_000_000  # bytes of model.onnx; a larger one is dropped on the page by its reader

_DELIVERED = Path(__file__).with_name("assets")
_RUNTIME = _DELIVERED / "onnxruntime-web"
_PAGE = _DELIVERED / "try_page"
_NAMED_CLASSES = 4  # more of them make no heading


@dataclass(frozen=True)
class TryPage:
    """What a try page needs to know of its model."""

    classes: tuple[str, ...]
    """Names in output order."""
    reject: float
    """Novelty above which a picture is none of the classes."""
    resize: int
    """Pixels the shorter side is resized to before the centre crop."""
    title: str
    """The backbone's, for people."""
    version: str
    """Of Picaisso."""


def write_try_page(path: Path, page: TryPage, model: Path, limit: int = INSIDE_LIMIT) -> None:
    """Write the page for a `model.onnx`, which travels inside up to the limit in bytes."""
    path.write_text(_rendered(page, model.read_bytes(), limit), encoding="utf-8")


def _rendered(page: TryPage, model: bytes, limit: int) -> str:
    inside = len(model) <= limit
    runtime = json.loads((_RUNTIME / "MANIFEST.json").read_text(encoding="utf-8"))
    style, script = _text(_PAGE / "page.css"), _text(_PAGE / "page.js")
    runtime_script = _text(_RUNTIME / "ort.wasm.min.js")
    names = [f"<bdi>{html.escape(name)}</bdi>" for name in page.classes]
    return _filled(
        _text(_PAGE / "page.html"),
        {
            "policy": _policy(style, (runtime_script, script)),
            "title": html.escape(f"{_question(page.classes)} · Picaisso"),
            "heading": _question(names),
            "facts": html.escape(
                f"{page.title}, trained by Picaisso {page.version} for {len(page.classes)} classes."
            ),
            "runtime": html.escape(f"ONNX Runtime Web {runtime['version']} ({runtime['licence']})"),
            "licence": html.escape(_text(_RUNTIME / "LICENSE")),
            "style": style,
            "settings": _settings(page, model, inside),
            "module": _base64(_RUNTIME / "ort-wasm-simd-threaded.mjs"),
            "wasm": _base64(_RUNTIME / "ort-wasm-simd-threaded.wasm.gz"),
            "model": base64.b64encode(model).decode() if inside else "",
            "runtime_script": runtime_script,
            "page_script": script,
        },
    )


def _policy(style: str, scripts: tuple[str, ...]) -> str:
    """A content security policy under which nothing but these scripts runs and nothing can be sent
    or fetched.

    `blob:` is for the runtime's module, which has no address of its own inside one file.
    """
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed} blob: 'wasm-unsafe-eval'; style-src 'sha256-{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _settings(page: TryPage, model: bytes, inside: bool) -> str:
    values: Mapping[str, Any] = {
        "classes": page.classes,
        "reject": page.reject,
        "resize": page.resize,
        "crop": CROP,
        "colours": np.rint(colour_scale()).astype(np.uint8).tobytes().hex(),
        "model": {
            "inside": inside,
            "bytes": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
        },
    }
    # A class name must not end the element that it stands in.
    return json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")


def _question(names: Sequence[str]) -> str:
    if len(names) > _NAMED_CLASSES:
        return f"Which of {len(names)} classes is it?"
    return f"Is it {', '.join(names[:-1])} or {names[-1]}?"


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced, once over: what a value contains is never taken
    for a name.
    """
    return re.sub(r"{{(\w+)}}", lambda found: values[found[1]], template)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
