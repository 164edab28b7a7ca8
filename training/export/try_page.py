"""`try.html`: one page with the model, its runtime and everything else inside, for any browser,
without a network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.explanations import colour_scale
from training.networks.catalogue import CROP

INSIDE_LIMIT = 130_000_000  # bytes of a model; a larger one is dropped on the page by its reader

_ASSETS = Path(__file__).with_name("assets")
_RUNTIME = _ASSETS / "onnxruntime-web"
_PAGE = _ASSETS / "try_page"
_NAMED_CLASSES = 4  # more of them make no heading


@dataclass(frozen=True)
class TryPage:
    """What a try page needs to know of its model."""

    classes: tuple[str, ...]
    """Names in output order."""
    reject: float
    """Novelty above which a picture is none of the classes."""
    resize_side: int | None
    """Pixels of the shorter side before the center crop; None where the whole is seen."""
    title: str
    """The backbone's, for people."""
    version: str
    """Of Picaisso."""
    precision: str = ""
    """What the page says of the model inside."""


def write_try_page(
    path: Path,
    page: TryPage,
    model: Path,
    half: bytes | None = None,
    limit: int = INSIDE_LIMIT,
) -> None:
    """Write the page for a `model.onnx`, with the model or its smaller copy inside.

    One that is larger than the limit in bytes stays outside.
    """
    full = model.read_bytes()
    model_bytes = full if half is None else half
    inside = len(model_bytes) <= limit
    if not inside:
        model_bytes = full
    runtime = json.loads(_text(_RUNTIME / "MANIFEST.json"))
    runtime_script = _text(_RUNTIME / "ort.wasm.min.js")
    page_script = _text(_PAGE / "page.js")
    style = _text(_PAGE / "page.css")
    names = [f"<bdi>{html.escape(name)}</bdi>" for name in page.classes]
    title = f"{_question(page.classes)} · Picaisso"
    classes = f"{len(page.classes)} classes"
    facts = f"{page.title}, trained by Picaisso {page.version} for {classes}."
    if inside and page.precision:
        facts += f" {page.precision}"
    runtime_title = f"ONNX Runtime Web {runtime['version']} ({runtime['licence']})"
    runtime_licence = _text(_RUNTIME / "LICENSE")
    values = {
        "policy": _content_security_policy(style, [runtime_script, page_script]),
        "title": html.escape(title),
        "heading": _question(names),
        "facts": html.escape(facts),
        "runtime": html.escape(runtime_title),
        "licence": html.escape(runtime_licence),
        "style": style,
        "settings": _settings(page, model_bytes, inside),
        "module": _base64(_RUNTIME / "ort-wasm-simd-threaded.mjs"),
        "wasm": _base64(_RUNTIME / "ort-wasm-simd-threaded.wasm.gz"),
        "model": base64.b64encode(model_bytes).decode() if inside else "",
        "runtime_script": runtime_script,
        "page_script": page_script,
    }
    template = _text(_PAGE / "page.html")
    # In one pass, so that what a value contains is never taken for a name.
    rendered = re.sub(r"{{(\w+)}}", lambda name: values[name[1]], template)
    path.write_text(rendered, encoding="utf-8")


def _content_security_policy(style: str, scripts: Sequence[str]) -> str:
    """Return a policy under which only these scripts run and nothing can be sent or fetched.

    `blob:` is for the runtime's module, which has no address of its own inside one file.
    """
    allowed = " ".join(_csp_source(script) for script in scripts)
    return (
        "default-src 'none';"
        f" script-src {allowed} blob: 'wasm-unsafe-eval';"
        f" style-src {_csp_source(style)};"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


def _csp_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    encoded = base64.b64encode(digest).decode()
    return f"'sha256-{encoded}'"


def _settings(page: TryPage, model: bytes, inside: bool) -> str:
    """Return as JSON what the script of the page needs to know."""
    colors = np.rint(colour_scale()).astype(np.uint8)
    settings = {
        "classes": page.classes,
        "reject": page.reject,
        "resize": page.resize_side,
        "crop": CROP,
        "colours": colors.tobytes().hex(),
        "model": {
            "inside": inside,
            "bytes": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
        },
    }
    # A class name must not end the element that it stands in.
    return json.dumps(settings, ensure_ascii=False).replace("<", "\\u003c")


def _question(names: Sequence[str]) -> str:
    if len(names) > _NAMED_CLASSES:
        return f"Which of {len(names)} classes is it?"
    all_but_last = ", ".join(names[:-1])
    return f"Which is it: {all_but_last} or {names[-1]}?"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
