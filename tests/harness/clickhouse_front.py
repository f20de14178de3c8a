"""The ClickHouse engine behind ClickHouse's HTTP interface, thinly: enough for clickhouse-connect, in a process to be killed.

Run as ``python -m harness.clickhouse_front <folder> <port>``; says where it listens on its first line.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import chdb

NO_SETTINGS: Final = {
    *("query", "database", "default_format", "query_id", "session_id", "wait_end_of_query", "client_protocol_version"),
    *("enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms"),
}
"""Parameters that are about HTTP."""
connect: Final[Any] = chdb.connect  # whether it counts as typed depends on which of chdb's wheels came last


class Front(BaseHTTPRequestHandler):
    """Carries out one statement per request, on a connection to the engine that belongs to the request's thread."""

    protocol_version = "HTTP/1.1"
    folder = ""
    own = threading.local()

    def do_GET(self) -> None:
        """Answer ``/ping``."""
        self._answer(200, b"Ok.\n")

    def do_POST(self) -> None:
        """Carry out a statement: the parameter ``query``, followed by the body."""
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if not self._is_chunked else self._chunks()
        statement = given.get("query", "").encode()
        try:
            answer = self._run(b"\n".join(part for part in (statement, body) if part), given)
        except RuntimeError as error:
            code = re.search(r"Code: (\d+)", str(error))
            self._answer(500, str(error).encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1000"})
        else:
            self._answer(200, answer, {"X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Format": "Native"})

    def _run(self, statement: bytes, given: dict[str, str]) -> bytes:
        engine = self._engine()
        if database := given.get("database"):
            engine.query(f"USE `{database}`")
        for name, value in given.items():
            if name not in NO_SETTINGS and not name.startswith("param_"):
                engine.query(f"SET {name} = '{value}'")
        parameters = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
        result = engine.query(statement.decode(), given.get("default_format", "TabSeparated"), params=parameters)
        return bytes(result.bytes())

    def _engine(self) -> Any:
        if not hasattr(self.own, "engine"):
            self.own.engine = connect(self.folder)
        return self.own.engine

    @property
    def _is_chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding") == "chunked"

    def _chunks(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


class FrontServer(ThreadingHTTPServer):
    """Takes connections; that one of them breaks is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong on our side."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Serve until killed."""
    Front.folder = sys.argv[1]
    with closing(connect(Front.folder)), FrontServer(("127.0.0.1", int(sys.argv[2])), Front) as server:
        sys.stdout.write(f"listening on {server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
