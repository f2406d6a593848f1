"""A stand-in for the Hugging Face Hub on this machine, as far as sharing a model and getting it back needs it."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

TOKEN = "hf_standin"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories in memory: of each the files of every commit, the last one last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path.strip("/").split("/"):
            case [*_] if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer({"error": "Invalid username or password."}, status=401)
            case ["api", "validate-yaml"]:
                self._answer({"warnings": [], "errors": []})
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization', 'someone')}/{asked['name']}"
                self.server.repositories.setdefault(name, [])
                self._answer({"url": f"{self.server.url}/{name}", "id": name, "name": name})
            case ["api", "models", _, _, "preupload", "main"]:
                files = [
                    {"path": file["path"], "shouldIgnore": False, "uploadMode": self._mode(file["path"])}
                    for file in json.loads(body)["files"]
                ]
                self._answer({"files": files})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    of | {"actions": {"upload": {"href": f"{self.server.url}/large/{of['oid']}"}}}
                    for of in json.loads(body)["objects"]
                ]
                self._answer({"transfer": "basic", "objects": objects})
            case ["api", "models", owner, name, "commit", "main"]:
                commits = self.server.repositories[f"{owner}/{name}"]
                commits.append({**(commits[-1] if commits else {}), **dict(self._committed(body))})
                oid = _oid(commits)
                self._answer({"commitUrl": f"{self.server.url}/{owner}/{name}/commit/{oid}", "commitOid": oid})

    @staticmethod
    def _mode(path: str) -> str:
        return "lfs" if path.endswith(".safetensors") else "regular"

    def _committed(self, body: bytes) -> Iterator[tuple[str, bytes]]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                yield value["path"], self.server.large[value["oid"]]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(content).hexdigest() == self.path.split("/")[-1]
        self.server.large[self.path.split("/")[-1]] = content
        self._answer({})

    def do_GET(self) -> None:
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, *more] if commits := self.server.repositories.get(f"{owner}/{name}"):
                files = commits[-1]
                if more[:1] == ["tree"]:
                    self._answer(
                        [{"type": "file", "path": p, "size": len(c), "oid": _sha(c)} for p, c in files.items()]
                    )
                else:
                    siblings = [{"rfilename": path} for path in files]
                    self._answer({"id": f"{owner}/{name}", "sha": _oid(commits), "siblings": siblings})
            case [owner, name, "resolve", _, path]:
                commits = self.server.repositories[f"{owner}/{name}"]
                content = commits[-1][path]
                self._send(content, {"X-Repo-Commit": _oid(commits), "ETag": f'"{_sha(content)}"'})
            case _:
                self._answer({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(commits: list[Any]) -> str:
    return f"{len(commits):040x}"


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def stand_in_hub(cache: Any) -> Iterator[Hub]:
    """Run one; huggingface_hub asks it and nobody else, and keeps what it gets in the folder."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch, Hub() as hub:
        # As the variable HF_ENDPOINT would before the package is imported.
        patch.setattr(constants, "ENDPOINT", hub.url)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setenv("HF_TOKEN", TOKEN)
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
