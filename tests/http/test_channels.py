"""Appending to channels and draining them over HTTP, and credentials for their log."""

from __future__ import annotations

import json

import pytest

from harness.client import Client
from harness.in_process import Site, session_token
from harness.out import trim, write_out
from sessions_adapters.profiles import SCALE
from sessions_core.domain.channel import TURN_COMPLETE, control_record, data_record
from sessions_core.domain.ids import PartId


async def test_an_append_is_the_body_as_text_in_an_envelope(client: Client, first: int) -> None:
    await client.create("chat-1")
    texts = ["plain", '{"kind":"message"}', "", "é😀\u2028", '"quoted"\n', "a\x00b"]
    for number, text in enumerate(texts):
        answer = await client.append("chat-1", text, f"part-{number}")
        assert (answer.status, answer.body) == (200, {"ok": True, "seq": first + number})
    records = await client.records("chat-1", "in")
    assert [(record["data"], record["id"]) for record in records] == [(t, f"part-{i}") for i, t in enumerate(texts)]


async def test_a_repeated_part_id_gives_the_first_seq_and_stores_nothing(client: Client, first: int) -> None:
    await client.create("chat-1")
    assert (await client.append("chat-1", "one", "p")).body["seq"] == first
    assert (await client.append("chat-1", "other", "p")).body == {"ok": True, "seq": first}
    assert (await client.append("chat-1", "two")).body["seq"] == first + 1
    assert [record["data"] for record in await client.records("chat-1", "in")] == ["one", "two"]


async def test_a_forged_webhook_mark_is_removed_on_in_only(client: Client) -> None:
    await client.create("chat-1")
    forged = '{"kind":"message","payload":{"actionSource":"webhook","x":1}}'
    await client.append("chat-1", forged)
    await client.append("chat-1", forged, io="out")
    assert json.loads((await client.records("chat-1", "in"))[0]["data"]) == {"kind": "message", "payload": {"x": 1}}
    assert (await client.records("chat-1", "out"))[0]["data"] == forged


@pytest.mark.parametrize(("io", "status"), [("in", 409), ("out", 400)])
async def test_an_append_to_a_closed_session_says_why(client: Client, io: str, status: int) -> None:
    await client.create("chat-1")
    await client.call("POST", "/api/v1/sessions/chat-1/close", {"reason": "done"})
    answer = await client.append("chat-1", "late", io=io)
    assert (answer.status, answer.headers["x-should-retry"]) == (status, "false")
    assert answer.body == {
        "ok": False,
        "error": "Cannot append to a closed session",
        "code": "session_closed",
        "closedReason": "done",
    }


async def test_an_append_to_an_unknown_session_is_404(client: Client) -> None:
    answer = await client.append("nope", "x")
    assert (answer.status, answer.body["ok"], answer.body["code"]) == (404, False, "session_not_found")


async def test_a_stale_epoch_is_refused_on_out(client: Client) -> None:
    await client.create("chat-1")
    answer = await client.append("chat-1", "x", io="out", X_Session_Epoch="7")
    assert (answer.status, answer.body["code"], answer.headers["x-should-retry"]) == (409, "stale_run", "false")


async def test_the_largest_record_fits_and_one_byte_more_is_413(client: Client) -> None:
    await client.create("chat-1")
    room = 1_048_576 - 8 - len('{"data":"","id":"p"}')
    assert (await client.append("chat-1", "x" * room, "p")).status == 200
    answer = await client.append("chat-1", "x" * (room + 1), "q")
    assert (answer.status, answer.body["code"]) == (413, "record_too_large")
    assert len(await client.records("chat-1", "in")) == 1


async def test_records_go_on_after_a_seq_and_a_limit_says_where(client: Client, first: int) -> None:
    await client.create("chat-1")
    for number in range(5):
        await client.append("chat-1", str(number))
    path = "/realtime/v1/sessions/chat-1/in/records"
    assert [r["seqNum"] for r in (await client.call("GET", f"{path}?afterEventId={first + 2}")).body["records"]] == [
        first + 3,
        first + 4,
    ]
    page = (await client.call("GET", f"{path}?limit={first + 2}")).body
    assert ([r["seqNum"] for r in page["records"]], page["nextEventId"]) == ([first, first + 1], str(first + 1))
    last = (await client.call("GET", f"{path}?limit=3&afterEventId={first + 1}")).body
    assert "nextEventId" not in last
    assert (await client.call("GET", f"{path}?afterEventId=99")).body == {"records": []}


async def test_records_show_controls_with_headers_and_hide_commands(client: Client, site: Site) -> None:
    await client.create("chat-1")
    turn = control_record(TURN_COMPLETE, {"session-in-event-id": "3"})
    await write_out(site, "chat-1", data_record({"type": "start"}, PartId("a")))
    await trim(site, "chat-1", 0)
    await write_out(site, "chat-1", turn)
    records = await client.records("chat-1", "out")
    assert records == [
        {"data": {"type": "start"}, "id": "a", "seqNum": 0},
        {
            "data": "",
            "id": "",
            "seqNum": 2,
            "headers": [["trigger-control", "turn-complete"], ["session-in-event-id", "3"]],
        },
    ]


@pytest.mark.parametrize("io", ["in", "out"])
async def test_an_unknown_external_id_has_an_empty_channel_and_an_unknown_friendly_id_none(
    client: Client, io: str
) -> None:
    path = f"/realtime/v1/sessions/later/{io}"
    assert (await client.call("GET", f"{path}/records")).body == {"records": []}
    assert (await client.call("HEAD", path)).headers["X-Last-Chunk-Index"] == "0"
    assert (await client.call("GET", path, Timeout_Seconds="1")).status == 200
    for method, path in (("GET", f"{io}/records"), ("GET", io), ("HEAD", io)):
        assert (await client.call(method, f"/realtime/v1/sessions/session_nope/{path}")).status == 404


@pytest.mark.parametrize("io", ["in", "out"])
async def test_there_are_credentials_for_the_log_or_for_our_own_data_plane(
    client: Client, site: Site, io: str, profile: str
) -> None:
    await client.create("chat-1")
    answer = await client.call("PUT", f"/realtime/v1/sessions/chat-1/{io}")
    assert (answer.status, answer.headers["X-S2-Stream-Name"].rpartition("/")[2]) == (202, io)
    assert (answer.headers["X-S2-Endpoint"] == f"{site.address}/v1") is (profile != SCALE)


async def test_a_session_token_may_not_write_out(client: Client, site: Site) -> None:
    await client.create("chat-1")
    browser = site.client(session_token(site, "chat-1"))
    assert (await browser.append("chat-1", "x")).status == 200
    assert (await browser.append("chat-1", "x", io="out")).status == 403
    assert (await browser.call("PUT", "/realtime/v1/sessions/chat-1/out")).status == 403
    assert await client.records("chat-1", "out") == []
