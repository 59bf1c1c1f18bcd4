"""A Hugging Face Hub on this machine: what its client, ours and timm's, asks of the real one.

Files go up within a commit, as the real Hub takes small ones; those of weights come down with their
SHA-256 as ETag, as its large files do. https://huggingface.co/docs/hub/api
"""

import hashlib
import json
import re
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save
from test_export import drawn, values

import zoo
from zoo.origin import Origin
from zoo.pretrained import timm_config
from zoo.pretrained.layouts import LAYOUTS

Files = dict[str, bytes]  # by path


@dataclass
class Hub:
    """The repositories of a Hub, what it was asked, and what it is to refuse."""

    address: str = ""
    # repository -> branch -> commits, each with all files
    repositories: dict[str, dict[str, list[tuple[str, Files]]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    read_only: bool = False
    damaged: set[str] = field(default_factory=set)  # paths whose bytes are not those of their ETag
    seen: list[str] = field(default_factory=list)  # "METHOD path"
    made: list[dict[str, Any]] = field(default_factory=list)  # what repositories were made with

    def add(self, repository: str, files: Files, branch: str = "main") -> str:
        """Commit files on top of those that are there, and return the commit."""
        branches = self.repositories.setdefault(repository, {"main": []})
        commits = branches.setdefault(branch, [])
        whole = {**(commits[-1][1] if commits else {}), **files}
        text = json.dumps([repository, branch, len(commits), sorted(files)])
        commit = hashlib.sha1(text.encode()).hexdigest()
        commits.append((commit, whole))
        return commit

    def add_folder(self, repository: str, folder: Path, branch: str = "main") -> str:
        """Commit the files of a folder."""
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        return self.add(repository, files, branch)

    def files(self, repository: str, branch: str = "main") -> Files:
        """The newest files of a branch."""
        return self.repositories[repository][branch][-1][1]

    def find(self, repository: str, revision: str) -> tuple[str, Files] | None:
        """The commit that a branch or the name of a commit stands for."""
        branches = self.repositories[repository]
        if revision in branches:
            return branches[revision][-1] if branches[revision] else ("0" * 40, {})
        commits = (commit for commits in branches.values() for commit in commits)
        return next((commit for commit in commits if commit[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=code)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    # --- down ---

    def do_GET(self) -> None:
        self.hub.seen.append(f"{self.command} {self.path}")
        if asked := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self.file(*asked.groups())
        elif asked := re.match(r"/api/models/([^/]+/[^/]+?)/tree/([^/?]+)", self.path):
            self.tree(*asked.groups())
        else:
            self.refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def tree(self, repository: str, revision: str) -> None:
        found = repository in self.hub.repositories and self.hub.find(repository, revision)
        if not found:
            self.refuse(404, "RepoNotFound")
            return
        entries = found[1].items()
        self.json([{"type": "file", "path": n, "size": len(x), "oid": _git(x)} for n, x in entries])

    def file(self, repository: str, revision: str, name: str) -> None:
        if repository not in self.hub.repositories:
            self.refuse(404, "RepoNotFound")
            return
        if repository in self.hub.gated:
            self.refuse(403, "GatedRepo")
            return
        found = self.hub.find(repository, revision)
        if found is None:
            self.refuse(404, "RevisionNotFound")
            return
        commit, files = found
        if name not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        large = name.endswith((".safetensors", ".bin"))
        etag = hashlib.sha256(files[name]).hexdigest() if large else _git(files[name])
        body = files[name][::-1] if name in self.hub.damaged else files[name]
        self.answer(200, body, ETag=f'"{etag}"', X_Repo_Commit=commit, Accept_Ranges="bytes")

    # --- up ---

    def do_POST(self) -> None:
        self.hub.seen.append(f"{self.command} {self.path}")
        body = self.body()
        if self.path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif self.hub.read_only:
            self.refuse(403, "Forbidden")
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif asked := re.match(r"/api/models/(.+/.+)/branch/(.+)", self.path):
            branches = self.hub.repositories[asked[1]]
            branches[asked[2]] = branches["main"][-1:]
            self.json({})
        elif asked := re.match(r"/api/models/(.+/.+)/preupload/([^?]+)", self.path):
            files = json.loads(body)["files"]
            plain = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.json({"files": [{"path": file["path"], **plain} for file in files]})
        elif asked := re.match(r"/api/models/(.+/.+)/commit/([^?]+)", self.path):
            self.commit(asked[1], asked[2], body)
        else:
            self.refuse(404, "EntryNotFound")

    def create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self.hub.address}/{repository}"
        if repository in self.hub.repositories:
            self.answer(409, json.dumps({"url": url}).encode(), X_Error_Message="exists")
            return
        self.hub.repositories[repository] = {"main": []}
        self.hub.made.append(asked)
        self.json({"url": url, "name": repository, "id": repository})

    def commit(self, repository: str, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        values = [line["value"] for line in lines if line["key"] == "file"]
        files = {value["path"]: b64decode(value["content"]) for value in values}
        commit = self.hub.add(repository, files, branch)
        url = f"{self.hub.address}/{repository}/commit/{commit}"
        self.json({"commitUrl": url, "commitOid": commit, "success": True, "hookOutput": ""})


def _git(data: bytes) -> str:
    """The name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub without repositories, while the context lasts."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


# --- what is pushed ------------------------------------------------------------------------------

CLASSES = ("ant", "bee", "cat | dog")
SMALL = "mobilenet_v2_035"


@cache
def _drawn(name: str, **switches) -> zoo.Network:
    return drawn(name, num_classes=3, **switches)


def pets(name: str = SMALL, **switches) -> zoo.Network:
    """A network whose every tensor is random, with names of classes, preprocessing and origin."""
    model = nnx.clone(_drawn(name, **switches))
    model.classes = CLASSES
    model.preprocess = zoo.Preprocess(
        size=96, resize=105, interpolation="bicubic", mean=[0.5] * 3, std=[0.25] * 3
    )
    model.origin = Origin("resnet50.a1_in1k", "Apache-2.0", "https://huggingface.co/timm/a")
    return model


@cache
def timm_tensors(name: str, **switches) -> bytes:
    model, layout = _drawn(name, **switches), LAYOUTS["timm"]
    rules = layout.rules_for(model)
    named = {
        layout.source_name(path, rules): layout.restore(path, x, model)
        for path, x in values(model).items()
    }
    return save({name: np.ascontiguousarray(x) for name, x in named.items()})


def timm_files(model: zoo.Network, **config) -> Files:
    """What `timm.models.push_to_hf_hub` uploads of a network: timm 1.0.31's config.json."""
    size = model.preprocess.size
    about = {
        "architecture": timm_config.architecture_of(model.spec),
        "num_classes": model.spec.num_classes,
        "num_features": 1280,
        "global_pool": "avg",
        "label_names": [*model.classes],
        "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": {
            "tag": "untrained",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "num_classes": model.spec.num_classes,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "mit",
        },
        **config,
    }
    about = {key: value for key, value in about.items() if value is not None}
    tensors = timm_tensors(model.spec.name, numerics=model.spec.numerics)
    return {"model.safetensors": tensors, "config.json": json.dumps(about).encode()}


def assert_same(got: zoo.Network, want: zoo.Network) -> None:
    assert values(got).keys() == values(want).keys()
    for path, x in values(want).items():
        np.testing.assert_array_equal(values(got)[path], x, err_msg=path)
