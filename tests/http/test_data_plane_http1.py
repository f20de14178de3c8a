"""The S2 data plane over HTTP/1.1: JSON, events, browsers."""

from __future__ import annotations

import json

from harness.client import Client
from harness.direct import call, own_credentials
from harness.in_process import Site


async def test_json_is_written_and_read_as_texts_and_as_base64(chat: Client, site: Site) -> None:
    given = own_credentials()
    body = b'{"records":[{"body":"\xc3\xa4","headers":[["a","b"]],"timestamp":5},{"body":"x"}]}'
    raw = await call(site, "POST", given, body, content_type="application/json")
    assert raw.status == 200
    start = raw.json["start"]["seq_num"]
    assert [raw.json[place]["seq_num"] - start for place in ("start", "end", "tail")] == [0, 2, 2]
    again = await call(site, "POST", given, b'{"records":[{"body":"/w=="}]}', s2_format="base64")
    assert again.json["start"]["seq_num"] == start + 2
    shown = await call(site, "GET", given, query=f"?seq_num={start}")
    records = shown.json["records"]
    assert [record.get("body") for record in records] == ["ä", "x", "\ufffd"]
    assert records[0]["headers"] == [["a", "b"]]
    assert records[0]["timestamp"] > 5, "arrival counts"
    assert shown.json["tail"]["seq_num"] == start + 3
    binary = await call(site, "GET", given, query=f"?seq_num={start}&count=3", s2_format="base64")
    assert [record["body"] for record in binary.json["records"]] == ["w6Q=", "eA==", "/w=="]


async def test_events_can_be_resumed(chat: Client, site: Site) -> None:
    given = own_credentials()
    body = json.dumps({"records": [{"body": str(number)} for number in range(4)]}).encode()
    start = (await call(site, "POST", given, body)).json["start"]["seq_num"]
    query = f"?seq_num={start}&count=3"
    first = await call(site, "GET", given, query=query, accept="text/event-stream")
    assert first.headers["Content-Type"] == "text/event-stream"
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert f"event: batch\nid: {start + 2},3,27\n".encode() in first.body
    rest = await call(site, "GET", given, query=query, accept="text/event-stream", last_event_id=f"{start + 1},2,18")
    assert f'"seq_num":{start + 2},'.encode() in rest.body
    assert f'"seq_num":{start + 3},'.encode() not in rest.body
    waited = await call(site, "GET", given, query=f"?seq_num={start + 4}&wait=1", accept="text/event-stream")
    assert waited.body.startswith(b"event: ping\n")
    assert waited.body.endswith(b"data: [DONE]\n\n")


async def test_a_browser_may_write_and_read(chat: Client, site: Site) -> None:
    asked = await call(
        site, "OPTIONS", own_credentials(), origin="https://page.example", access_control_request_headers="s2-basin"
    )
    assert asked.status == 200
    assert asked.headers["Access-Control-Allow-Headers"] == "s2-basin"
    for answer in (
        asked,
        await call(site, "POST", own_credentials(token="wrong"), b"{}", origin="https://page.example"),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
