"""The data plane in the OpenAPI document, as far as JSON goes: sessions and protobuf are for S2's own clients."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from sessions_server.data_plane.access import BASIN
from sessions_server.data_plane.answers import EVENTS, JSON
from sessions_server.data_plane.failures import STATUSES
from sessions_server.data_plane.records import MAX_HEADERS, MAX_RECORDS, MAX_TOKEN
from sessions_server.data_plane.requests import LONGEST_WAIT
from sessions_server.data_plane.service import RECORDS, TAIL
from sessions_server.parameters import ANSWER, REQUEST
from sessions_server.wire.schemas import Parameter, text, whole

EXAMPLE_STREAM: Final = "sessions/chat-1/in"
EXAMPLE_BASIN: Final = "sessions-0123456789abcdef01234567"
_LARGEST: Final = 2**64 - 1
_UINT64: Final = whole(0, _LARGEST)
_REF: Final = "#/components/schemas/{}"
_POSITION: Final = {"$ref": _REF.format("StreamPosition")}


def _object(**members: Any) -> dict[str, Any]:
    """Describe an object of which every member is there."""
    return {"type": "object", "required": list(members), "properties": members}


_PAIRS: Final = {
    "type": "array",
    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string"}},
    "maxItems": MAX_HEADERS,
}
SCHEMAS: Final = {
    "StreamPosition": _object(seq_num=_UINT64, timestamp=_UINT64),
    "StreamAppend": {
        "type": "object",
        "required": ["records"],
        "properties": {
            "records": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_RECORDS,
                "items": {
                    "type": "object",
                    "properties": {
                        "timestamp": {"anyOf": [_UINT64, {"type": "null"}]},
                        "headers": _PAIRS,
                        "body": {"type": "string"},
                    },
                },
            },
            "match_seq_num": {"anyOf": [_UINT64, {"type": "null"}]},
            "fencing_token": {"anyOf": [{"type": "string", "maxLength": MAX_TOKEN}, {"type": "null"}]},
        },
    },
    "StreamAck": _object(start=_POSITION, end=_POSITION, tail=_POSITION),
    "StreamBatch": {
        "type": "object",
        "required": ["records"],
        "properties": {
            "records": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["seq_num", "timestamp"],
                    "properties": {
                        "seq_num": _UINT64,
                        "timestamp": _UINT64,
                        "headers": _PAIRS,
                        "body": {"type": "string"},
                    },
                },
            },
            "tail": _POSITION,
        },
    },
    "StreamTail": _object(tail=_POSITION),
    "StreamConflict": {
        "type": "object",
        "description": "What the stream is fenced with, or where it ends.",
        "properties": {"fencing_token_mismatch": {"type": "string"}, "seq_num_mismatch": _UINT64},
        "minProperties": 1,
    },
    "StreamProblem": _object(
        code={"type": "string", "enum": sorted([*STATUSES, "not_found"])},
        message={"type": "string", "minLength": 1},
    ),
}

_STREAM: Final = Parameter(
    name="stream",
    description="`sessions/{key}/in` or `…/out`, percent-encoded as a whole.",
    schema=text(least=1),
    example=EXAMPLE_STREAM,
    is_required=True,
)
_BASIN: Final = Parameter(
    name=BASIN,
    description="The environment's basin.",
    schema={"type": "string"},
    example=EXAMPLE_BASIN,
    is_required=True,
)
_FORMAT: Final = Parameter(
    name="s2-format",
    description="How texts stand for bytes: as they are, or in base64.",
    schema={"type": "string", "enum": ["raw", "base64"]},
    example="raw",
)
_LAST_EVENT_ID: Final = Parameter(
    name="Last-Event-ID",
    description="Of a stream of events: `seq_num,count,bytes`, where to go on.",
    schema={"type": "string", "pattern": r"^\d{1,15},\d{1,15},\d{1,15}$"},
    example="0,1,10",
)
_QUERY: Final = tuple(
    Parameter(name=name, description=description, schema=schema, example=example)
    for name, description, schema, example in (
        ("seq_num", "Start at this seq.", _UINT64, 0),
        ("timestamp", "Start at the first record of this time or later.", _UINT64, None),
        ("tail_offset", "Start so many before the end.", _UINT64, None),
        ("clamp", "Whether a start beyond the end means the end.", {"type": "boolean"}, True),
        ("count", "So many records at most.", _UINT64, 10),
        ("bytes", "So many metered bytes at most.", _UINT64, None),
        ("until", "Only records that came before this.", _UINT64, None),
        ("wait", f"Seconds to wait for a record at the end, {LONGEST_WAIT} at most in one answer.", _UINT64, 0),
    )
)
_SECURITY: Final[list[dict[str, list[str]]]] = [
    {name: []} for name in ("rootKey", "additionalKey", "publicToken", "accessToken")
]
SCHEMES: Final = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "From `PUT /realtime/v1/sessions/{session}/{io}`: one channel.",
    }
}


def _answer(status: HTTPStatus, schema: str, *more: str) -> tuple[str, dict[str, Any]]:
    content = {JSON: {"schema": {"$ref": _REF.format(schema)}}} | {
        kind: {"schema": {"type": "string"}} for kind in more
    }
    return str(status.value), {
        "description": status.phrase,
        "headers": {ANSWER.name: ANSWER.described()},
        "content": content,
    }


def _operation(name: str, summary: str, given: tuple[tuple[str, Parameter], ...], *answers: Any) -> dict[str, Any]:
    refusals = (HTTPStatus(status) for status in sorted({408, *STATUSES.values()}))
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["data_plane"],
        "parameters": [{"in": place, "name": each.name, **each.described()} for place, each in given],
        "responses": dict([*(_answer(status, "StreamProblem") for status in refusals), *answers]),
        "security": _SECURITY,
    }


_COMMON: Final = (("path", _STREAM), ("header", _BASIN), ("header", REQUEST))
_APPEND: Final = {
    **_operation(
        "append_stream",
        "Append a batch of records, all or none",
        (*_COMMON, ("header", _FORMAT)),
        _answer(HTTPStatus.OK, "StreamAck"),
        _answer(HTTPStatus.PRECONDITION_FAILED, "StreamConflict"),
    ),
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {"$ref": _REF.format("StreamAppend")},
                "example": {"records": [{"body": '{"data":{"kind":"message"},"id":"note-1"}'}]},
            }
        },
    },
}
PATHS: Final[dict[str, dict[str, Any]]] = {
    RECORDS: {
        "get": _operation(
            "read_stream",
            "Read records, or follow them as server-sent events",
            (*_COMMON, ("header", _FORMAT), ("header", _LAST_EVENT_ID), *(("query", each) for each in _QUERY)),
            _answer(HTTPStatus.OK, "StreamBatch", EVENTS),
            _answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "StreamTail"),
        ),
        "post": _APPEND,
    },
    TAIL: {"get": _operation("check_tail", "Ask where a stream ends", _COMMON, _answer(HTTPStatus.OK, "StreamTail"))},
}
