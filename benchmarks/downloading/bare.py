"""The limit beside which N1 is measured: aiohttp and Pillow in the shortest loop that does the
work.

``python -m benchmarks.downloading.bare URLS.txt FOLDER --processes P --threads T``: fetch, decode
at the reduced scale that JPEG allows, resize to 256, encode, write. No guard, no screening, no
hashes, no rows, no retries.
"""

import argparse
import asyncio
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
from PIL import Image

SIDE = 256
QUALITY = 90


def store(body: bytes, file: Path) -> None:
    """Decode, shrink to 256 px, encode, write."""
    with Image.open(io.BytesIO(body)) as image:
        longer = max(image.size)
        size = (round(image.width * SIDE / longer), round(image.height * SIDE / longer))
        image.draft("RGB", size)
        small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    small.save(file, "JPEG", quality=QUALITY)


async def download(urls: list[str], folder: Path, connections: int, threads: int) -> None:
    """Fetch all with so many connections, and store in so many threads."""
    loop, left = asyncio.get_running_loop(), iter(enumerate(urls))
    with ThreadPoolExecutor(threads) as pool:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for number, url in left:
                    async with session.get(url) as response:
                        body = await response.read()
                    await loop.run_in_executor(pool, store, body, folder / f"{number:05d}.jpg")

            await asyncio.gather(*(work() for _ in range(connections)))


def main() -> None:
    """Share the list among processes, each with its own loop and threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("list", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--share", type=int, help="number of this process among them")
    given = parser.parse_args()
    if given.processes > 1 and given.share is None:
        command = [sys.executable, "-m", "benchmarks.downloading.bare", *sys.argv[1:], "--share"]
        children = [subprocess.Popen([*command, str(share)]) for share in range(given.processes)]
        sys.exit(max(child.wait() for child in children))
    urls = given.list.read_text().split()[given.share or 0 :: given.processes]
    folder = given.out / str(given.share or 0)
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(download(urls, folder, given.connections // given.processes, given.threads))


if __name__ == "__main__":
    main()
