"""A hub on loopback: the endpoints of the Hugging Face Hub that ``huggingface_hub`` calls to make a
repository, to commit files (small ones in the commit, tensors by Git LFS) and to download them.

It keeps commits in memory, and answers as the hub does for a missing repository, a missing revision
and a token that may not write. Storage by Xet, which the hub has too, is not there.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
import urllib.parse

import yaml

WRITER, READER = "hf_writer", "hf_reader"  # tokens


@dataclasses.dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)  # by SHA
    branch: str = ""  # SHA of main

    def at(self, revision):
        return revision if revision in self.commits else self.branch * (revision == "main")


class Hub:
    """The state of the hub; ``failing`` {part of a path: status} makes requests fail."""

    def __init__(self):
        self.repositories, self.objects, self.failing, self.seen = {}, {}, {}, []

    def commit(self, name, files):
        repository = self.repositories[name]
        sha = hashlib.sha1(repr((repository.branch, sorted(files))).encode()).hexdigest()
        before = repository.commits.get(repository.branch, {})
        repository.commits[sha] = before | files
        repository.branch = sha
        return sha


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def answer(self, status, content=None, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        self.hub.seen.append((self.command, path))
        for part, status in self.hub.failing.items():
            if part in path:
                return self.answer(status, {"error": f"told to answer {status}"})
        parts = path.strip("/").split("/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if parts[:3] == ["api", "repos", "create"]:
            return self.create(json.loads(body), token)
        if parts[:2] == ["api", "validate-yaml"]:
            return self.validate(json.loads(body)["content"])
        if parts[0] == "lfs":
            self.hub.objects[parts[1]] = body
            return self.answer(200)
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        name = name.removesuffix(".git")
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and token not in (WRITER, READER)):
            status = 404 if token in (WRITER, READER) else 401
            return self.answer(status, {"error": "not found"}, X_Error_Code="RepoNotFound")
        if self.command == "POST" and token != WRITER:
            return self.answer(403 if token else 401, {"error": "you may not write here"})
        if parts[:2] == ["api", "models"]:
            return self.api(name, repository, *parts[4:6], body=body)
        if parts[2:] == ["info", "lfs", "objects", "batch"]:
            return self.batch(json.loads(body))
        return self.resolve(repository, parts[3], "/".join(parts[4:]))

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, asked, token):
        name = f"{asked['organization']}/{asked['name']}"
        if token not in (WRITER, READER):
            return self.answer(401, {"error": "Invalid username or password."})
        if token == READER or asked["organization"] != "ann":
            return self.answer(403, {"error": "You don't have the rights to create a model"})
        url = {"url": f"{self.base}/{name}"}
        if name in self.hub.repositories:
            return self.answer(409, url | {"error": "You already created this model repo"})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(bool(private))
        self.hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.answer(200, url)

    @property
    def base(self):
        return f"http://{self.headers['Host']}"

    def validate(self, text):
        errors = []
        try:
            metadata = yaml.safe_load(text.split("---\n")[1])
            errors = [f"{n} is required" for n in ("license", "tags") if n not in metadata]
        except (yaml.YAMLError, IndexError) as error:
            errors = [str(error)]
        told = [{"message": error} for error in errors]
        return self.answer(400 if errors else 200, {"errors": told, "warnings": []})

    def api(self, name, repository, kind="revision", revision="main", *, body):
        sha = repository.at(revision)
        if not sha:
            told = {"error": f"Invalid rev id: {revision}"}
            return self.answer(404, told, X_Error_Code="RevisionNotFound")
        files = repository.commits[sha]
        if kind == "revision":
            siblings = [{"rfilename": path} for path in files]
            about = {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []}
            return self.answer(200, about | {"private": repository.private, "downloads": 0})
        if kind == "tree":
            return self.answer(200, [_entry(path, data) for path, data in files.items()])
        if kind == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for path in asked
            ]
            return self.answer(200, {"files": modes})
        assert kind == "commit", kind
        added = {}
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                added[value["path"]] = self.hub.objects[value["oid"]]
        sha = self.hub.commit(name, added)
        url = f"{self.base}/{name}/commit/{sha}"
        return self.answer(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def batch(self, asked):
        objects = []
        for entry in asked["objects"]:
            upload = {"href": f"{self.base}/lfs/{entry['oid']}"}
            objects.append(entry | {"actions": {"upload": upload}})
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def resolve(self, repository, revision, path):
        data = repository.commits[repository.at(revision)].get(path)
        if data is None:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        etag = hashlib.sha256(data).hexdigest()
        return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=repository.at(revision))


def _entry(path, data):
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if path.endswith(".safetensors"):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return entry


@contextlib.contextmanager
def running():
    """Runs a hub; yields it, with its ``url``."""
    hub = Hub()
    handler = type("HandlerOfOne", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
