"""`python -m scraping.screening.worker`: one screening process, started by the pool."""

import contextlib
import mmap
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import IO

from PIL import Image

# OpenBLAS reads this while it is loaded, with numpy, by the modules below. The threads that it
# would start otherwise spin for half of a worker's start.
os.putenv("OPENBLAS_NUM_THREADS", "1")

from scraping.screening.nudity import NudityModel
from scraping.screening.protocol import READY, WorkOrder, read_order, read_request, write_answer
from scraping.screening.screen import MAX_PIXELS, CleanImage, Judge, screen, store

MEMORY_LIMIT_BYTES = 2 << 30


def main() -> None:
    """Screen images from standard input to standard output until the other side closes."""
    requests = sys.stdin.buffer
    answers_descriptor = os.dup(sys.stdout.fileno())
    # A decoder that prints must not print into an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(answers_descriptor, "wb") as answers, contextlib.suppress(EOFError):
        order = read_order(requests)
        judge = None
        if order.settings.nudity_model:  # loaded before the limits, which are for images
            judge = NudityModel(order.settings.nudity_model).objection
        limit_decoding()
        serve(requests, answers, order, judge)


def limit_decoding() -> None:
    """Limit pixels and memory, should a decoder want more than the checked header says."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    limit = _address_space() + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    """Return the bytes reserved already; libraries reserve much on machines with many cores."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    pages = int(statm.read_text().split()[0])
    return pages * mmap.PAGESIZE


def serve(requests: IO[bytes], answers: IO[bytes], order: WorkOrder, judge: Judge | None) -> None:
    """Answer requests. Raises EOFError when the other side closes, however it ended."""
    answers.write(READY)
    answers.flush()
    while True:
        answer = screen(read_request(requests), order.settings, judge)
        if isinstance(answer, CleanImage) and order.folder is not None:
            store(answer, Path(order.folder))
            answer = replace(answer, jpeg=b"")
        write_answer(answers, answer)


if __name__ == "__main__":
    main()
