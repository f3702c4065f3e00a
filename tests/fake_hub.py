"""A server that answers as huggingface.co does, for a few models."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import starmap
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let huggingface_hub, which reads its variables when it is imported, ask `address`."""
    for name, value in {
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


@contextmanager
def serve_silence() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def serve_page() -> Iterator[str]:
    """Yield the address of a server that answers everything with a page, as a network that wants a login."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run a server and yield its address."""
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_hub(models: dict[str, Path], files_status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders of models; yield the address and the list of requests so far: method and path.

    Another `files_status` is the answer for all files: 403 of a gated model, 0 for no answer at all.
    """
    requests: list[str] = []
    served = {
        model: {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        for model, folder in models.items()
    }
    ended = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            requests.append(f"{self.command} {path}")
            for model, files in served.items():
                if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
                    siblings = [{"rfilename": name} for name in files]
                    about = {"id": model, "sha": COMMIT, "siblings": siblings}
                    return self.send(json.dumps(about).encode(), body, {})
                if path == f"/api/models/{model}/tree/{COMMIT}":
                    return self.send(json.dumps(list(starmap(describe, files.items()))).encode(), body, {})
                if path.startswith(f"/{model}/resolve/"):
                    return self.answer_file(path.split("/", 5)[5], files, body)
            self.refuse(404, "RepoNotFound")

        def answer_file(self, name: str, files: dict[str, bytes], body: bool) -> None:
            if files_status == 0:
                ended.wait()
            elif files_status != 200:
                self.refuse(files_status, "GatedRepo" if files_status == 403 else "")
            elif name in files:
                etag = hashlib.sha1(files[name]).hexdigest()
                self.send(files[name], body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.refuse(404, "EntryNotFound")

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def describe(name: str, data: bytes) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        try:
            yield address, requests
        finally:
            ended.set()
