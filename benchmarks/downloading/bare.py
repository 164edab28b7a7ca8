"""The limit beside which N1 is measured: aiohttp and Pillow in the shortest loop that works.

``python -m benchmarks.downloading.bare URLS.txt FOLDER --processes P --threads T``: fetch, decode
at the reduced scale that JPEG allows, resize to 256, encode, write. No guard, no screening, no
hashes, no records, no retries.
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
        scale = SIDE / max(image.size)
        width = round(image.width * scale)
        height = round(image.height * scale)
        size = (width, height)
        image.draft("RGB", size)
        small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    small.save(file, "JPEG", quality=QUALITY)


async def download(urls: list[str], folder: Path, connections: int, threads: int) -> None:
    """Fetch all with so many connections, and store in so many threads."""
    loop = asyncio.get_running_loop()
    left = iter(enumerate(urls))
    with ThreadPoolExecutor(threads) as pool:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for number, url in left:
                    async with session.get(url) as response:
                        body = await response.read()
                    file = folder / f"{number:05d}.jpg"
                    await loop.run_in_executor(pool, store, body, file)

            workers = [work() for _ in range(connections)]
            await asyncio.gather(*workers)


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
        children = []
        for share in range(given.processes):
            children.append(subprocess.Popen([*command, str(share)]))
        sys.exit(max(child.wait() for child in children))
    share = given.share or 0
    all_urls = given.list.read_text().split()
    urls = all_urls[share :: given.processes]
    folder = given.out / str(share)
    folder.mkdir(parents=True, exist_ok=True)
    connections = given.connections // given.processes
    asyncio.run(download(urls, folder, connections, given.threads))


if __name__ == "__main__":
    main()
