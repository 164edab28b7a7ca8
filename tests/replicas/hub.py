"""Hugging Face's hub as its own client meets it when a folder is uploaded: making a repository,
how each file is to be sent, large files by LFS, and the commit.
"""

import json
import threading

from tests.replicas.server import Replica, Request, Response, json_response


class HubReplica(Replica):
    """Keeps what is uploaded: `blobs` by digest, and `files` of the one repository by path.

    With `breaks_after` it answers 500 to every large file after so many. A request needs a token.
    """

    def __init__(self, breaks_after: int | None = None) -> None:
        super().__init__()
        self.breaks_after = breaks_after
        self.repositories: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, str] = {}  # path: digest, or the text of a small file
        self._lock = threading.Lock()

    def respond(self, request: Request) -> Response:
        if request.path.startswith("/storage/"):
            return self._store(request.path.rpartition("/")[2], request.body)
        if "Bearer hf_test" not in request.headers.get("authorization", ""):
            return json_response({"error": "Invalid credentials"}, 401)
        if request.path == "/api/repos/create":
            return self._create(json.loads(request.body))
        place, _, step = request.path.removeprefix("/api/datasets/").partition("/preupload/")
        if step:
            return self._preupload(json.loads(request.body)["files"])
        if request.path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(request.body)["objects"])
        if "/commit/" in place:
            return self._commit(request.body)
        if "/tree/" in place:
            tree = [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in self.files]
            return json_response(tree)
        return json_response({"id": "ada/pets", "sha": "0" * 40, "siblings": []})

    def _create(self, wish: dict) -> Response:
        name = f"{wish['organization']}/{wish['name']}"
        answer = {"url": f"{self.url}/datasets/{name}", "name": name}
        if name in self.repositories:
            return json_response(answer, 409)
        self.repositories[name] = wish
        return json_response(answer)

    def _preupload(self, files: list[dict]) -> Response:
        answers = []
        for file in files:
            mode = "lfs" if file["path"].endswith(".jpg") else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        return json_response({"files": answers})

    def _batch(self, objects: list[dict]) -> Response:
        answers = []
        for each in objects:
            if each["oid"] not in self.blobs:
                upload = {"href": f"{self.url}/storage/{each['oid']}"}
                each = {**each, "actions": {"upload": upload}}
            answers.append(each)
        return json_response({"transfer": "basic", "objects": answers})

    def _store(self, digest: str, content: bytes) -> Response:
        with self._lock:
            if self.breaks_after is not None and len(self.blobs) >= self.breaks_after:
                return Response(b"gone", "text/plain", 400)
            self.blobs[digest] = content
        return Response(b"", "text/plain")

    def _commit(self, body: bytes) -> Response:
        for line in body.decode().splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "lfsFile":
                assert value["oid"] in self.blobs
                self.files[value["path"]] = value["oid"]
            elif step["key"] == "file":
                self.files[value["path"]] = value["content"]
            elif step["key"] == "deletedFile":
                del self.files[value["path"]]
        (name,) = self.repositories
        commit = "1" * 40
        address = f"{self.url}/datasets/{name}/commit/{commit}"
        return json_response({"commitUrl": address, "commitOid": commit, "success": True})
