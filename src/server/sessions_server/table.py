"""The route table: the one place that says which routes there are, what they read and what they ask of a caller.

The router, the permission check, ``/openapi.json`` and the tests are made from it.
"""

from __future__ import annotations

from typing import Final

from sessions_server.problems import Refusal
from sessions_server.queries import LIST_PARAMETERS, RECORDS_PARAMETERS, parse_list, parse_records
from sessions_server.route import Route
from sessions_server.routes import channels, health, runs, sessions, snapshots, tokens, waits
from sessions_server.wire import requests, responses

KIB: Final = 1024
SESSIONS: Final = "/api/v1/sessions"
SESSION: Final = SESSIONS + "/{session}"
CHANNEL: Final = "/realtime/v1/sessions/{session}/{io}"
RUN: Final = "/api/v1/runs/{run}"
_APPEND: Final = "Cannot append to {a} session"

ROUTES: Final = (
    Route(
        method="POST",
        path=SESSIONS,
        name="create_session",
        handler=sessions.create,
        summary="Create a session with its first run, or get the open one with the same externalId",
        cap=32 * KIB,
        body=requests.CreateSession,
        response=responses.CreatedSessionItem,
        status=201,
        refusal=Refusal(409, "Session is {state}; use a different externalId to create a new session", code=None),
    ),
    Route(
        method="GET",
        path=SESSIONS,
        name="list_sessions",
        handler=sessions.list_all,
        summary="List sessions, newest first",
        response=responses.SessionList,
        query=parse_list,
        parameters=LIST_PARAMETERS,
    ),
    Route(
        method="GET",
        path=SESSION,
        name="retrieve_session",
        handler=sessions.retrieve,
        summary="Read a session",
        response=responses.SessionItem,
    ),
    Route(
        method="PATCH",
        path=SESSION,
        name="update_session",
        handler=sessions.update,
        summary="Replace a session's tags or metadata",
        cap=32 * KIB,
        body=requests.UpdateSession,
        response=responses.SessionItem,
    ),
    Route(
        method="POST",
        path=SESSION + "/close",
        name="close_session",
        handler=sessions.close,
        summary="Close a session for good",
        cap=KIB,
        body=requests.CloseSession,
        response=responses.SessionItem,
        headers=(sessions.EPOCH_HEADER,),
    ),
    Route(
        method="POST",
        path=SESSION + "/end-and-continue",
        name="end_and_continue",
        handler=sessions.end_and_continue,
        summary="Hand a session over from the calling run to a new one",
        cap=KIB,
        body=requests.EndAndContinue,
        response=responses.HandOverItem,
        headers=(sessions.EPOCH_HEADER,),
        refusal=Refusal(400, "Cannot end-and-continue {a} session"),
    ),
    Route(
        method="GET",
        path=SESSION + "/runs",
        name="list_session_runs",
        handler=sessions.list_runs,
        summary="List the runs that have served a session, newest first",
        response=responses.SessionRunList,
    ),
    Route(
        method="GET",
        path=SESSION + "/snapshot-url",
        name="read_snapshot",
        handler=snapshots.missing,
        summary="Not built: always 404",
        status=404,
    ),
    Route(
        method="PUT",
        path=SESSION + "/snapshot-url",
        name="write_snapshot",
        handler=snapshots.missing,
        summary="Not built: always 404",
        status=404,
    ),
    Route(
        method="GET",
        path=SESSION + "/transcript",
        name="read_transcript",
        handler=snapshots.missing,
        summary="Not built: always 404",
        status=404,
    ),
    Route(
        method="GET",
        path=CHANNEL,
        name="subscribe",
        handler=channels.subscribe,
        summary="Follow a channel as server-sent events",
        headers=("Last-Event-ID", "Timeout-Seconds", "X-Peek-Settled"),
    ),
    Route(
        method="HEAD",
        path=CHANNEL,
        name="subscribe",
        handler=channels.head,
        summary="Ask whether a channel may be followed",
    ),
    Route(
        method="PUT",
        path=CHANNEL,
        name="initialize_{io}",
        handler=channels.initialize,
        summary="Get credentials for writing a channel directly; they are in the X-S2-* headers",
        response=responses.Initialized,
        status=202,
        refusal=Refusal(400, "Cannot initialize a channel on {a} session"),
    ),
    Route(
        method="GET",
        path=CHANNEL + "/records",
        name="read_records",
        handler=channels.records,
        summary="Read what is in a channel, without waiting",
        response=responses.RecordList,
        query=parse_records,
        parameters=RECORDS_PARAMETERS,
    ),
    Route(
        method="POST",
        path=CHANNEL + "/append",
        name="append_{io}",
        handler=channels.append,
        summary="Append the body, as text, as one record",
        cap=channels.MAX_APPEND,
        response=responses.Appended,
        headers=(channels.PART_HEADER, sessions.EPOCH_HEADER),
        refusal=Refusal(409, _APPEND),
        out_refusal=Refusal(400, _APPEND),
        says_ok=True,
    ),
    Route(
        method="GET",
        path=RUN,
        name="retrieve_run",
        handler=runs.retrieve,
        summary="Read a run",
        response=responses.RunItem,
    ),
    Route(
        method="POST",
        path=RUN + "/session-streams/wait",
        name="create_wait",
        handler=waits.create,
        summary="Create a waitpoint for the next record of a channel",
        cap=10 * KIB,
        body=requests.CreateWait,
        response=responses.WaitCreated,
    ),
    Route(
        method="GET",
        path="/api/v1/waitpoints/tokens/{waitpoint}",
        name="retrieve_waitpoint",
        handler=waits.retrieve,
        summary="Read a waitpoint, or wait for its end",
        response=responses.WaitpointItem,
        headers=("Timeout-Seconds",),
    ),
    Route(
        method="POST",
        path="/engine/v1/runs/{run}/waitpoints/tokens/{waitpoint}/wait",
        name="wait_for_waitpoint",
        handler=waits.block,
        summary="Say that a run waits for a waitpoint",
        response=responses.Success,
    ),
    Route(
        method="POST",
        path="/api/v1/auth/jwt/claims",
        name="read_token_claims",
        handler=tokens.claims,
        summary="Read what a token signed with the root key has to claim",
        response=responses.TokenClaims,
    ),
    Route(
        method="POST",
        path="/api/v1/auth/public-tokens",
        name="create_public_token",
        handler=tokens.create,
        summary="Mint a public token",
        cap=32 * KIB,
        body=requests.CreatePublicToken,
        response=responses.PublicTokenItem,
    ),
    Route(
        method="GET",
        path="/healthz",
        name=None,
        handler=health.alive,
        summary="Is the process alive?",
        response=responses.Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        name=None,
        handler=health.ready,
        summary="Should requests be sent here?",
        response=responses.Health,
    ),
    Route(method="GET", path="/metrics", name=None, handler=health.metrics, summary="Prometheus metrics"),
    Route(method="GET", path="/openapi.json", name=None, handler=health.document, summary="This document"),
)
