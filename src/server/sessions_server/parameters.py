"""Every member of a path, a query string or a header that means something here, for the OpenAPI document.

What reads them is elsewhere, and tests hold the two together.
"""

from __future__ import annotations

from typing import Final

import attrs

from sessions_core.domain.channel import Io
from sessions_core.domain.pagination import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from sessions_core.domain.status import SessionStatus
from sessions_server.epochs import EPOCH_HEADER, MAX_EPOCH
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.queries import MAX_RECORDS, MAX_RUNS
from sessions_server.routes.channels import PART_HEADER
from sessions_server.sse import MAX_WINDOW_SECONDS
from sessions_server.wire.schemas import Parameter, listed, text, whole
from sessions_server.wire.values import MAX_NAME, MAX_NUMBER

_NAME: Final = text(MAX_NAME, least=1)
_CURSOR: Final = {"type": "string", "contentEncoding": "base64url"}
_MOMENT: Final = {"anyOf": [{"type": "string", "format": "date-time"}, whole(0, MAX_NUMBER)]}

PATH: Final = {
    each.name: each
    for each in (
        Parameter(
            name="session", description="Friendly id or external id.", schema=_NAME, example="chat-1", is_required=True
        ),
        Parameter(
            name="io",
            description="`in` towards the agent, `out` from it.",
            schema={"type": "string", "enum": list(Io)},
            example="in",
            is_required=True,
        ),
        Parameter(name="run", description="A run's id.", schema=_NAME, example="run_1", is_required=True),
        Parameter(
            name="waitpoint", description="A waitpoint's id.", schema=_NAME, example="waitpoint_1", is_required=True
        ),
    )
}
"""By name, since a name means the same in every path."""

LIST: Final = (
    Parameter(
        name="page[size]",
        description=f"So many sessions at most; {DEFAULT_PAGE_SIZE} if missing.",
        schema=whole(1, MAX_PAGE_SIZE),
        example=5,
    ),
    Parameter(name="page[after]", description="Cursor from `pagination.next`: older sessions.", schema=_CURSOR),
    Parameter(name="page[before]", description="Cursor from `pagination.previous`: newer sessions.", schema=_CURSOR),
    Parameter(name="filter[type]", description="Types, any of them.", schema=listed(text())),
    Parameter(name="filter[tags]", description="Tags, any of them.", schema=listed(text())),
    Parameter(name="filter[taskIdentifier]", description="Tasks, any of them.", schema=listed(text())),
    Parameter(name="filter[externalId]", description="The caller's own id.", schema=text()),
    Parameter(
        name="filter[status]",
        description="Statuses, any of them.",
        schema=listed({"type": "string", "enum": list(SessionStatus)}),
        example=["ACTIVE", "EXPIRED"],
    ),
    Parameter(
        name="filter[createdAt][period]",
        description="Created in the last so long: `1h30m`, or milliseconds. What is neither counts as missing.",
        schema=text(),
        example="1d",
    ),
    Parameter(
        name="filter[createdAt][from]",
        description="Created then or later: ISO 8601 or Unix milliseconds.",
        schema=_MOMENT,
        example="2026-01-02T03:04:05Z",
    ),
    Parameter(
        name="filter[createdAt][to]",
        description="Created then or before: ISO 8601 or Unix milliseconds.",
        schema=_MOMENT,
        example=4_102_444_800_000,
    ),
)
RECORDS: Final = (
    Parameter(name="afterEventId", description="Only records after this seq.", schema=whole(0, MAX_NUMBER), example=0),
    Parameter(
        name="limit",
        description="So many records at most; all if missing.",
        schema=whole(1, MAX_RECORDS),
        example=10,
    ),
)
RUNS: Final = (
    Parameter(
        name="limit",
        description=f"So many runs at most; {MAX_RUNS} if missing.",
        schema=whole(1, MAX_RUNS),
        example=10,
    ),
)

EPOCH: Final = Parameter(
    name=EPOCH_HEADER,
    description="Epoch of the attempt that asks. 409 `stale_run` when it is over.",
    schema=whole(1, MAX_EPOCH),
    example=1,
)
OWN_EPOCH: Final = attrs.evolve(EPOCH, is_required=True)
"""The same, where nobody but an attempt may ask."""
PART: Final = Parameter(
    name=PART_HEADER,
    description="The writer's name for what it appends. The same one again stores nothing, so a retry is safe.",
    schema={"type": "string", "maxLength": MAX_NAME},
    example="part-1",
)
LAST_EVENT_ID: Final = Parameter(
    name="Last-Event-ID",
    description="The last seq seen; from the start if it is missing or cannot be read.",
    schema={"type": "string"},
    example="0",
)
WINDOW: Final = Parameter(
    name="Timeout-Seconds",
    description="The stream ends when no record has come for so long.",
    schema=whole(1, MAX_WINDOW_SECONDS),
    example=1,
)
PATIENCE: Final = attrs.evolve(
    WINDOW, description="Wait so long for the waitpoint's end; without it the answer comes at once."
)
PEEK: Final = Parameter(
    name="X-Peek-Settled",
    description="`1` on `out`: if the channel ends with a completed turn, send what is there and end.",
    schema={"type": "string", "enum": ["0", "1"]},
    example="1",
)
REQUEST: Final = Parameter(
    name=REQUEST_ID,
    description="The caller's own name for the request, which the answer and the log repeat.",
    schema={"type": "string"},
)

ANSWER: Final = attrs.evolve(REQUEST, description="The request's name, as the log has it.", is_required=True)
RETRY: Final = Parameter(
    name="x-should-retry",
    description="Whether the same request could succeed later.",
    schema={"type": "string", "enum": ["true", "false"]},
)
_COUNT: Final = {"type": "string", "pattern": "^[0-9]+$"}
EXCESS: Final = (
    Parameter(name="Retry-After", description="In how many seconds to come again.", schema=_COUNT, is_required=True),
    Parameter(name="x-ratelimit-limit", description="How many may come at once.", schema=_COUNT),
    Parameter(name="x-ratelimit-remaining", description="How many may come now.", schema=_COUNT),
    Parameter(name="x-ratelimit-reset", description="When one more may come, in Unix milliseconds.", schema=_COUNT),
)
RETRY_AFTER: Final = Parameter(
    name="Retry-After",
    description="After so many seconds, if that is known.",
    schema={"type": "integer", "minimum": 1},
)
_VERSION: Final = Parameter(
    name="X-Stream-Version", description="`v2`, always.", schema={"type": "string", "enum": ["v2"]}, is_required=True
)
STREAM: Final = (
    _VERSION,
    Parameter(
        name="X-Session-Settled",
        description="`true` if asked and settled.",
        schema={"type": "string", "enum": ["true"]},
    ),
    Parameter(
        name="X-Session-Gap",
        description="The first kept seq, if records after the one named in `Last-Event-ID` are no longer kept.",
        schema=whole(0, MAX_NUMBER),
    ),
)
HEAD: Final = (
    _VERSION,
    Parameter(
        name="X-Last-Chunk-Index",
        description="A relic.",
        schema={"type": "string", "enum": ["0"]},
        is_required=True,
    ),
)
CREDENTIALS: Final = tuple(
    Parameter(name=f"X-S2-{name}", description=description, schema={"type": "string"}, is_required=True)
    for name, description in (
        ("Access-Token", "What opens the channel."),
        ("Basin", "The environment's basin."),
        ("Stream-Name", "The channel's stream."),
        ("Endpoint", "Where the data plane is."),
        ("Flush-Interval-Ms", "For how long a writer may gather records."),
        ("Max-Retries", "How often a writer should try again."),
    )
)
