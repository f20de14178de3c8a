"""The HTTP reference page lists every route and every error as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from sessions_server.http2.budget import Bucket, Budget
from sessions_server.http2.limits import Http2Limits
from sessions_server.problems import TABLE
from sessions_server.table import ROUTES

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "http.md").read_text()


def size(cap: int | None) -> str:
    if cap is None:
        return ""
    return f"{cap // 1024} KiB" if cap < 2**20 else f"{cap // 2**20} MiB"


def test_every_route_is_on_the_page() -> None:
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \| (\d+) \| ?([^|]*?) ?\| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert rows == [(r.method, r.path, str(r.status), size(r.cap), r.summary) for r in ROUTES]


def test_every_error_is_on_the_page() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (\w*) ?\|", PAGE, re.MULTILINE)
    retries = {None: "", True: "true", False: "false"}
    assert rows == sorted({(str(a.status), a.code, retries[a.retry]) for a in TABLE.values()})


def test_every_header_that_a_route_reads_is_on_the_page() -> None:
    for name in {each.name for route in ROUTES for each in (*route.headers, *route.parameters, *route.sends)}:
        assert name.removeprefix("filter[createdAt]") in PAGE, name


def test_every_limit_of_http_2_is_on_the_page() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\d+ (?:s|KiB|MiB)|\d+) \| \S", PAGE, re.MULTILINE))
    times = {"headers", "quiet", "pong", "idle", "slow_write", "age"}
    limits = attrs.asdict(Http2Limits())
    assert rows == {
        name: f"{value:.0f} s" if name in times else str(value) if name in ("streams", "header_count") else size(value)
        for name, value in limits.items()
    }


def test_everything_that_is_counted_over_http_2_is_on_the_page() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (\d[\d ]*) \| (\d+) \|$", PAGE, re.MULTILINE)
    buckets: list[Bucket] = list(attrs.asdict(Budget(), recurse=False).values())
    assert rows == [(each.what, f"{each.size:,}".replace(",", " "), str(each.per_second)) for each in buckets]
