"""A stand-in for the model hub: the calls that huggingface_hub makes to share and to fetch files.

The hub itself cannot be reached in tests. What stands here follows what the client sends and what
it reads of answers: repositories, branches, commits of files in one piece, and files by revision
with the headers that its cache goes by. It knows no large files, and checks no rights.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]


@dataclass
class Hub:
    """What is on the hub.

    Attributes:
        url: Its address.
        commits: Files of every commit, by repository and commit.
        branches: Newest commit of every branch, by repository and branch.
        asked: Methods and paths that were asked for, in order.
        tokens: Tokens that came with them.
        settings: What every repository was made with.
        refuses: Status and reason of every answer, if it refuses everything.
    """

    url: str = ""
    commits: dict[str, dict[str, Files]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    refuses: tuple[int, str] | None = None

    def files(self, repository: str, branch: str = "main") -> Files:
        """Return the files of a branch."""
        return self.commits[repository][self.branches[repository][branch]]

    def commit(
        self, repository: str, branch: str, changed: Files, deleted: Collection[str] = ()
    ) -> str:
        """Add a commit to a branch, and return its name."""
        known = self.commits.setdefault(repository, {})
        branches = self.branches.setdefault(repository, {})
        files = {**known.get(branches.get(branch, ""), {}), **changed}
        files = {file: content for file, content in files.items() if file not in deleted}
        name = hashlib.sha1(f"{branch} {len(known)}".encode()).hexdigest()
        known[name] = files
        branches[branch] = name
        return name


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: object, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def _begin(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("authorization"))
        return path, self.rfile.read(int(self.headers.get("content-length") or 0))

    def do_POST(self) -> None:
        path, body = self._begin()
        if self.hub.refuses is not None:
            status, reason = self.hub.refuses
            self._json({"error": reason}, status)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({})
        elif found := re.fullmatch(r"/api/models/(.+/.+)/preupload/(.+)", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            known = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": file, **known} for file in files]})
        elif found := re.fullmatch(r"/api/models/(.+/.+)/branch/(.+)", path):
            repository, branch = found.groups()
            branches = self.hub.branches[repository]
            self._json({}, 409 if branch in branches else 200)
            branches.setdefault(branch, branches["main"])
        elif found := re.fullmatch(r"/api/models/(.+/.+)/commit/(.+)", path):
            self._commit(found[1], found[2], body)
        else:
            self._json({"error": f"unknown: {path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        there = name in self.hub.branches
        if not there:
            self.hub.settings[name] = asked
            self.hub.commit(name, "main", {})
        self._json({"url": f"{self.hub.url}/{name}"}, 409 if there else 200)

    def _commit(self, repository: str, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        changed = {file["path"]: base64.b64decode(file["content"]) for file in files}
        deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        if strangers := [
            file for file in deleted if file not in self.hub.files(repository, branch)
        ]:
            return self._json({"error": f"A file with the name {strangers} does not exist"}, 400)
        pull = "create_pr=1" in self.path
        if pull:
            self.hub.branches[repository]["refs/pr/1"] = self.hub.branches[repository][branch]
        name = self.hub.commit(repository, "refs/pr/1" if pull else branch, changed, deleted)
        url = f"{self.hub.url}/{repository}"
        asked = {"pullRequestUrl": f"{url}/discussions/1"} if pull else {}
        return self._json({"commitUrl": f"{url}/commit/{name}", "commitOid": name, **asked})

    def do_GET(self) -> None:
        path, _ = self._begin()
        tree = re.fullmatch(r"/api/models/(.+/.+)/tree/(.+)", path)
        if tree is not None and self.hub.refuses is None:
            return self._json(
                [
                    {"type": "file", "path": file, "size": len(content), "oid": "0" * 40}
                    for file, content in self.hub.files(*tree.groups()).items()
                ]
            )
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path)
        if self.hub.refuses is not None:
            return self._answer(self.hub.refuses[0])
        if found is None or found[1] not in self.hub.branches:
            return self._answer(404, X_Error_Code="RepoNotFound")
        return self._file(*found.groups())

    do_HEAD = do_GET

    def _file(self, repository: str, revision: str, file: str) -> None:
        commit = self.hub.branches[repository].get(revision, revision)
        files = self.hub.commits[repository].get(commit)
        if files is None:
            return self._answer(404, X_Error_Code="RevisionNotFound")
        if file not in files:
            return self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = files[file]
        etag = hashlib.sha1(content).hexdigest()
        return self._answer(200, content, X_Repo_Commit=commit, ETag=f'"{etag}"')


@contextmanager
def hub_running() -> Generator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hub_for(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """Run a hub that huggingface_hub asks in this process, with an empty cache in a folder."""
    with hub_running() as hub:
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield hub
