"""A server that answers as huggingface.co does, for one model."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(model: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as `model`; yield the address and the list of requests so far: method and path."""
    requests: list[str] = []
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            requests.append(f"{self.command} {path}")
            if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
                siblings = [{"rfilename": name} for name in files]
                self.send(json.dumps({"id": model, "sha": COMMIT, "siblings": siblings}).encode(), body, {})
            elif path == f"/api/models/{model}/tree/{COMMIT}":
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                self.send(json.dumps(entries).encode(), body, {})
            elif path.startswith(f"/{model}/resolve/") and (name := Path(path).name) in files:
                etag = hashlib.sha1(files[name]).hexdigest()
                self.send(files[name], body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.send_error(404)

        def send(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
