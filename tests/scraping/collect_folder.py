"""What the tests of a collection share: its configuration, its folder, and what a source lists."""

import hashlib
import io
import json
from pathlib import Path

from PIL import Image

from scraping.config import CollectConfig
from scraping.records.image_log import ImageRecord
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Request, Response, json_response
from tests.scraping.conftest import (
    config_for,
)

RECORD_KEYS = set(ImageRecord.__required_keys__)


def classes(*queries: str) -> list[dict]:
    return [
        {"id": f"c{n:03d}", "name": query, "query": query}
        for n, query in enumerate(queries, start=1)
    ]


def configuration(replicas: dict, hosts: list[PictureHost], **values) -> CollectConfig:
    values = {"min_side": 64, "limit": 10, "classes": classes("thing")} | values
    return config_for(replicas, allowed_private_hosts=[host.host for host in hosts], **values)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]


def by_url(folder: Path) -> dict[str, dict]:
    return {row["image_url"]: row for row in rows(folder)}


def check_folder(folder: Path, result: dict) -> None:
    """What must hold for every finished folder."""
    all_rows = rows(folder)
    assert len({(row["class"], row["image_url"]) for row in all_rows}) == len(all_rows)
    assert all(set(row) - {"dhash"} == RECORD_KEYS for row in all_rows)
    kept = [row for row in all_rows if row["state"] == "kept"]
    assert {row["file"] for row in kept} == {
        f"images/{file.name}" for file in (folder / "images").iterdir()
    }
    for row in kept:
        data = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert row["file"] == f"images/{row['sha256'][:16]}.jpg"
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"]))
    for entry in result["classes"]:
        assert entry["found"] == entry["kept"] + sum(entry["rejected"].values())
        assert entry["kept"] == sum(row["class"] == entry["id"] for row in kept) <= entry["asked"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert all(row["reason"] for row in all_rows if row["state"] == "rejected")


class Listing(OpenverseReplica):
    """Names the pictures that it is given, by the words asked for; an item may set what it
    likes.
    """

    def __init__(self, items: dict[str, list[dict]]) -> None:
        super().__init__()
        self.items = items

    def respond(self, request: Request) -> Response:
        found = [
            self._item(n) | item
            for n, item in enumerate(self.items.get(request.query.get("q", ""), []))
        ]
        page = int(request.query.get("page", "1"))
        answer = {
            "result_count": len(found),
            "page_count": 1,
            "page_size": 20,
            "page": page,
            "results": found,
        }
        return json_response(answer if page == 1 else answer | {"results": []})


def listed(url: str, **values: object) -> dict:
    return {"url": url, "width": None, "height": None, "license_url": ""} | values
