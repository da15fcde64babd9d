"""The HTTP side of the Hub of the tests: requests come in, planned failures and answers go out."""

from __future__ import annotations

import json
import re
import socket
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from hub_server import HubServer


@dataclass(frozen=True)
class Request:
    """One request as it came in, and how it was answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    range: str | None
    token: str | None
    status: int
    sent: int  # bytes of the answer's body
    body: bytes  # of the request


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Failure:
    """A planned failure: see `HubServer.fail_next`."""

    status: int | None
    times: int
    path: re.Pattern[str]
    sent: int
    headers: dict[str, str]


def failure(status: int, code: str, message: str) -> Answer:
    """An error as the Hub words it: the client reads the headers, people the body."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers})


def as_json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def ranged(path: Path, asked: str | None, headers: dict[str, str]) -> Answer:
    """A file's bytes, or the one range of them that was asked for (RFC 9110, section 14)."""
    data = path.read_bytes()
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if not match:
        return Answer(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1 if first and last else len(data), len(data))
    if start >= len(data):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def _read_body(self) -> bytes:
        if (self.headers.get("Transfer-Encoding") or "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _respond(self) -> None:
        hub = self.server.hub
        self.method = "GET" if self.command == "HEAD" else self.command
        self.body = self._read_body()
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.range = self.headers.get("Range")
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        planned = hub.take_failure(url.path)
        if planned and planned.status is None and not planned.sent:
            hub.requests.append(Request(self.command, url.path, query, self.range, self.token, 0, 0, self.body))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if planned and planned.status is not None:
            answer = failure(planned.status, "", "planned")
            answer.headers.update(planned.headers)
        else:
            answer = hub.answer(self, url.path, query)
        body = b"" if self.command == "HEAD" else answer.body
        hub.requests.append(
            Request(self.command, url.path, query, self.range, self.token, answer.status, len(body), self.body)
        )
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if planned and planned.status is None:
            self.wfile.write(body[: planned.sent])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.open: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # a client that hung up is no news, all else is

    def close_connections(self) -> None:
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
