"""Names of streams, and records as they lie in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.makers import make_channel
from sessions_adapters.s2 import S2Config
from sessions_adapters.s2.config import MAX_PREFIX_BYTES
from sessions_adapters.s2.names import stream_name
from sessions_adapters.s2.records import entry_of, part_of
from sessions_core.domain.channel import MAX_RECORD_BYTES, Channel, Io, NewRecord, data_record
from sessions_core.domain.ids import AddressingKey, EnvironmentId, PartId
from sessions_core.errors import InvalidError, RecordTooLargeError

texts = st.text(max_size=300) | st.text(st.sampled_from("a/%=.:é\U0001f980\ud800"), max_size=300)
channels = st.builds(
    Channel, st.builds(EnvironmentId, texts), st.builds(AddressingKey, texts), st.sampled_from(Io), st.none() | texts
)


def test_a_plain_address_is_told_by_its_name() -> None:
    assert stream_name("org/acme/", make_channel("chat:1", env="env_a")) == "org/acme/env/env_a/sessions/chat:1/out"


def test_an_external_id_of_256_plain_characters_is_told_by_its_name() -> None:
    assert f"/{'x' * 256}/" in stream_name("", make_channel("x" * 256))


@given(channels, channels)
@example(make_channel("a", name="b"), make_channel("a/in/b"))
@example(make_channel("a", name=""), make_channel("a", name=None))
def test_different_channels_have_different_names_that_s2_takes(one: Channel, other: Channel) -> None:
    names = [stream_name("p" * MAX_PREFIX_BYTES, channel) for channel in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert all(name.isascii() and len(name) <= 512 and "\0" not in name for name in names)


@given(st.text(min_size=1), st.from_type(type(None)) | st.text() | st.dictionaries(st.text(), st.text()))
def test_the_part_id_of_a_data_record_is_read_from_its_envelope(part: str, data: object) -> None:
    entry = entry_of(data_record(data, PartId(part)))
    assert entry.stored.headers == []
    assert part_of(entry.stored) == entry.part == part.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "body",
    [b'{"data":{"x":1,"id":"nested"}}', b'{"x":1,"id":"no envelope"}', b'{"data":1,"id":7}', b'{"data":1,"id":""}'],
)
def test_what_is_no_envelope_is_marked_so_that_it_can_be_found_again(body: bytes) -> None:
    first, second = (entry_of(NewRecord(body)).stored for _ in range(2))
    assert [name for name, _ in first.headers] == [b"sessions-part"]
    assert first.headers != second.headers


def test_an_envelope_written_by_others_is_known_by_its_id() -> None:
    body = json.dumps({"data": {"a": [1, "}"]}, "id": "abc\n"}, separators=(",", ":")).encode()
    assert part_of(entry_of(NewRecord(body)).stored) == b"abc\n"


def test_a_record_of_the_largest_size_is_taken_and_one_byte_more_is_not() -> None:
    assert entry_of(NewRecord(b"x" * (MAX_RECORD_BYTES - 8))).size == MAX_RECORD_BYTES
    with pytest.raises(RecordTooLargeError):
        entry_of(NewRecord(b"x" * (MAX_RECORD_BYTES - 7)))


@pytest.mark.parametrize("headers", [(("", "fence"),), (("", "trim"),), (("a", "b"), ("", "c"))], ids=str)
def test_nobody_appends_a_command(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidError):
        entry_of(NewRecord(b"live:9", headers))


def test_a_url_names_everything() -> None:
    found = S2Config.from_url("s2://:se%2Fcret@my-basin?endpoint=http://127.0.0.1:8080&prefix=org/a/")
    assert found == S2Config(basin="my-basin", token="se/cret", endpoint="http://127.0.0.1:8080", prefix="org/a/")
    assert not found.issues_tokens
    assert S2Config.from_url("s2://:token@my-basin").issues_tokens
    assert "cret" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "http://my-basin",
        "s2://",
        "s2://short?endpoint=http://x",
        "s2://:hunter2@short",
        "s2://:hunter2@my-basin/path",
        "s2://:hunter2@my-basin?x=1",
        "s2://my-basin?endpoint=ftp://x",
        "s2://my-basin?endpoint=http://x/path",
        "s2://:hunter2@my-basin?prefix=a%2F%2Fb",
        "s2://hunter2@my-basin?endpoint=http://x",
        "s2://user:hunter2@my-basin",
        "s2://:hunter2@my-basin:8080",
        "s2://:hunter2@my-basin:port",
        "s2://my-basin:8080?endpoint=http://x",
        "s2://:hunter2@my-basin#x",
        "s2://:[hunter2@my-basin",
        "s2://:hun/ter2@my-basin",
        "s2://:hun#ter2@my-basin",
    ],
)
def test_a_url_that_is_wrong_is_refused(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        S2Config.from_url(url)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["s2://my-basin", "s2://:@my-basin", "s2://my-basin?prefix=a/"])
def test_the_hosted_service_is_not_asked_without_a_token(url: str) -> None:
    with pytest.raises(InvalidError, match="token"):
        S2Config.from_url(url)
