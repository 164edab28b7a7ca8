"""Predictions take files and bytes; addresses are the command line's business."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_predict_can_open_no_address() -> None:
    code = (
        "import sys, training.predict;"
        "print([m for m in ('urllib.request', 'http.client', 'socket') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "[]", ended.stderr
