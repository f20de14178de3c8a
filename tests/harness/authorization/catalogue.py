"""All kinds of credentials that are tried, and what each gives its holder."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from harness.authorization import signing
from harness.authorization.kinds import (
    Kind,
    Stream,
    Use,
    ask_for_page_token,
    ask_for_session_token,
    asked,
    direct,
    direct_by_hand,
    forged,
    key,
    nobody,
    root,
    token,
    used_up,
)
from harness.authorization.rights import CARRY_OUT, EVERYTHING, NOTHING, PASS_ON, TALK, all_of, rights
from harness.authorization.world import CHAT, CURRENT_KEY, FOREIGN_KEY, GRACE_KEY, PAGE, PAST_KEY
from harness.in_process import OTHER_ENVIRONMENT
from sessions_core.domain.channel import Io

_HOUR: Final = timedelta(hours=1)
_BY_EXTERNAL: Final = ("read:sessions:{chat_key}", "write:sessions:{chat_key}")
_BY_FRIENDLY: Final = ("read:sessions:{chat_id}", "write:sessions:{chat_id}")
_OF_RUN: Final = ("write:runs:{chat_run}", "read:runs:{chat_run}", "read:sessions:{chat_key}")

KINDS: Final[tuple[Kind, ...]] = (
    nobody("no header", None),
    nobody("an empty header", ""),
    nobody("nothing after Bearer", "Bearer "),
    nobody("nonsense", "Bearer nonsense"),
    nobody("another scheme", "Basic dXNlcjpwYXNz"),
    nobody("a personal token", "Bearer tr_pat_" + "c" * 24),
    nobody("a public key", "Bearer pk_dev_" + "c" * 24),
    nobody("an unknown root key", "Bearer tr_dev_" + "u" * 24),
    nobody("an unknown additional key", "Bearer tr_dev_sk_" + "u" * 24),
    nobody("a root key but for its last character", f"Bearer {CURRENT_KEY[:-1]}"),
    nobody("garbage with dots", "Bearer a.b.c"),
    # root keys
    root("root key", CURRENT_KEY),
    root("rotated root key in its grace", GRACE_KEY),
    root("rotated root key past its grace", PAST_KEY, works=False),
    root("foreign root key", FOREIGN_KEY, is_foreign=True),
    # additional keys
    key("admin key", ["admin"], EVERYTHING | {PASS_ON}),
    key("key by external id", [*_BY_EXTERNAL, "admin:sessions:{chat_key}"], TALK | {"admin session chat", PASS_ON}),
    key("key by friendly id", [*_BY_FRIENDLY, "admin:sessions:{chat_id}"], TALK | {"admin session chat"}),
    key("key of the type", ["read:sessions", "write:sessions"], rights("read sessions", "write sessions")),
    key(
        "key of another session",
        ["*:sessions:{page_key}"],
        rights("read session page", "write session page", "admin session page"),
    ),
    key("key of one task", ["write:tasks:one", "read:tasks:one"], rights("write task one", "read task one")),
    key("key of runs", ["write:runs", "read:runs"], rights("write runs", "read runs")),
    key("key without scopes", [], NOTHING),
    key("key that ends", ["admin"], EVERYTHING | {PASS_ON}, life=_HOUR),
    key("expired key", ["admin"], EVERYTHING, life=-timedelta(seconds=1), works=False),
    key("revoked key", ["admin"], EVERYTHING, is_revoked=True, works=False),
    key("foreign key", ["admin"], EVERYTHING | {PASS_ON}, is_foreign=True),
    # tokens that a server gave out
    asked("session token", TALK, ask_for_session_token),
    asked(
        "page token",
        rights("read session page", "write session page", "admin session page"),
        ask_for_page_token,
    ),
    # tokens that work, and what their scopes give
    token("token by external id", _BY_EXTERNAL, TALK),
    token("token by friendly id", _BY_FRIENDLY, TALK),
    token("token that reads", ["read:sessions:{chat_key}"], rights("read session chat")),
    token("token that writes", ["write:sessions:{chat_id}"], rights("write session chat")),
    token("token that closes", ["admin:sessions:{chat_key}"], rights("admin session chat")),
    token(
        "token of the other session",
        ["*:sessions:{page_id}"],
        rights("read session page", "write session page", "admin session page"),
    ),
    token(
        "token up to the colon",
        ["*:sessions:{absent}"],
        rights("read session team", "write session team", "admin session team"),
    ),
    token("token past the colon", ["*:sessions:{chat_key}:x", "*:sessions:chat"]),
    token(
        "token of no session",
        ["*:sessions:{ghost}"],
        rights("read session ghost", "write session ghost", "admin session ghost"),
    ),
    token(
        "token of the foreign session",
        ["*:sessions:{foreign_id}"],
        rights("read session foreign", "write session foreign", "admin session foreign"),
    ),
    token("token of the type that reads", ["read:sessions"], rights("read sessions")),
    token("token of the type that writes", ["write:sessions"], rights("write sessions")),
    token("token of the type that closes", ["admin:sessions"], rights("admin sessions")),
    token("token that reads all", ["read:all"], all_of("read")),
    token("token that writes all", ["write:all"], all_of("write")),
    token("token that administers all", ["admin:all"], all_of("admin")),
    token("token of any action", ["*:all"], EVERYTHING),
    token("admin token", ["admin"], EVERYTHING),
    token("token of one task", ["write:tasks:one", "read:tasks:one"], rights("write task one", "read task one")),
    token(
        "token of two tasks",
        ["write:tasks:one", "read:tasks:one", "*:tasks:two"],
        rights("write task one", "read task one", "write task two", "read task two"),
    ),
    token("token of all tasks", ["write:tasks", "read:tasks"], rights("write tasks", "read tasks")),
    token("run token", _OF_RUN, CARRY_OUT),
    token(
        "run token of another session",
        ["write:runs:{page_run}", "read:runs:{page_run}", "read:sessions:{page_key}"],
        rights("write run page", "read run page", "read session page"),
    ),
    token("run token that may only write", ["write:runs:{chat_run}"], rights("write run chat")),
    token("token of all runs", ["write:runs", "read:runs"], rights("write runs", "read runs")),
    token("token for several audiences", _BY_EXTERNAL, TALK, claims={"aud": ["other", "https://api.trigger.dev"]}),
    token("token that has begun", _BY_EXTERNAL, TALK, claims={"nbf": 1}),
    token(
        "token of the rotated key in its grace",
        _BY_EXTERNAL,
        TALK,
        sign=lambda claims: signing.signed(claims, GRACE_KEY),
    ),
    token(
        "foreign admin token",
        ["admin"],
        EVERYTHING,
        sign=lambda claims: signing.signed(claims, FOREIGN_KEY),
        claims={"sub": OTHER_ENVIRONMENT},
        is_foreign=True,
    ),
    token("one-time token", _BY_EXTERNAL, TALK, claims={"otu": True, "jti": "fresh"}, use=Use.ONCE),
    token("one-time admin token", ["admin"], EVERYTHING, claims={"otu": True, "jti": "fresh"}, use=Use.ONCE),
    used_up("used one-time token", _BY_EXTERNAL, TALK),
    # tokens that work, and give nothing
    token("token without scopes", []),
    token("token with scopes left out", [], claims={"scopes": ...}),
    token("token with scopes as a text", [], claims={"scopes": "admin"}),
    token("token with odd scopes", [], claims={"scopes": [5, None, ["admin"], {"admin": True}]}),
    token(
        "token with scopes that are nearly some",
        [
            "ADMIN",
            " admin",
            "admin:",
            "read:",
            "read:sessions:",
            "*",
            "*:",
            "write:session",
            "read:ALL",
            "sessions",
            ":",
            "",
        ],
    ),
    # tokens that do not work
    forged("expired token", claims={"exp": int(time.time()) - 1}),
    forged("token without an end", claims={"exp": ...}),
    forged("token with an end in words", claims={"exp": "2999-01-01"}),
    forged("token that has not begun", claims={"nbf": 4_000_000_000}),
    forged("token of nobody", claims={"iss": "https://evil.test"}),
    forged("token without an issuer", claims={"iss": ...}),
    forged("token for others", claims={"aud": "https://evil.test"}),
    forged("token without an audience", claims={"aud": ...}),
    forged("token that is not public", claims={"pub": False}),
    forged("token that does not say it is public", claims={"pub": ...}),
    forged("token of no environment", claims={"sub": ...}),
    forged("token of an unknown environment", claims={"sub": "env_nope"}),
    forged("token of the foreign environment", claims={"sub": OTHER_ENVIRONMENT}),
    forged("token signed abroad", sign=lambda claims: signing.signed(claims, FOREIGN_KEY)),
    forged("token of the rotated key past its grace", sign=lambda claims: signing.signed(claims, PAST_KEY)),
    forged(
        "token signed with an additional key",
        sign=lambda claims: signing.signed(claims, "tr_dev_sk_AdminKey0000000000000000"),
    ),
    forged("token of alg none", sign=signing.unsigned),
    forged("token of alg None", sign=lambda claims: signing.unsigned(claims, "None")),
    forged("token that leaves its signature out", sign=lambda claims: signing.unsigned(claims, "HS256")),
    forged("HS384 token", sign=lambda claims: signing.signed(claims, CURRENT_KEY, algorithm="HS384")),
    forged("HS512 token", sign=lambda claims: signing.signed(claims, CURRENT_KEY, algorithm="HS512")),
    forged(
        "HS384 token that says HS256",
        sign=lambda claims: signing.signed(claims, CURRENT_KEY, algorithm="HS384", says="HS256"),
    ),
    forged("HS256 token that says RS256", sign=lambda claims: signing.signed(claims, CURRENT_KEY, says="RS256")),
    forged("RS256 token", sign=signing.signed_with_rsa),
    forged("token signed with a public key", sign=lambda claims: signing.signed(claims, signing.public_key())),
    forged("token with an empty key", sign=lambda claims: signing.signed(claims, "")),
    forged(
        "token with its key in its header",
        sign=lambda claims: signing.signed(claims, "mine", jwk={"kty": "oct", "k": "bWluZQ"}),
    ),
    # direct writers' tokens
    direct("direct writer of out", Stream("chat", Io.OUT)),
    direct("direct writer of in", Stream("chat", Io.IN)),
    direct("direct writer of the attempt before", Stream("chat", Io.OUT, is_over=True)),
    direct("direct writer of the other session", Stream("page", Io.OUT), key=PAGE),
    direct("foreign direct writer", Stream("chat", Io.OUT), is_foreign=True),
    direct_by_hand("direct writer of the rotated key in its grace", signed_with=GRACE_KEY, works=True),
    direct_by_hand("direct writer past his time", exp=int(time.time()) - 1),
    direct_by_hand("direct writer of the rotated key past its grace", signed_with=PAST_KEY),
    direct_by_hand("direct writer signed abroad", signed_with=FOREIGN_KEY),
    direct_by_hand("direct writer of nobody", iss="https://evil.test"),
    direct_by_hand("direct writer for others", aud="https://evil.test"),
    direct_by_hand("direct writer who has not begun", nbf=4_000_000_000),
    direct_by_hand("direct writer without an end", exp=...),
    direct_by_hand("direct writer of no channel", io="sideways"),
    direct_by_hand("direct writer of a list", key=[CHAT]),
    direct_by_hand("direct writer without an epoch", epoch=...),
)


def named(*names: str) -> tuple[Kind, ...]:
    """Return the kinds with these names.

    Raises:
        KeyError: There is none of that name.
    """
    by_name = {kind.name: kind for kind in KINDS}
    return tuple(by_name[name] for name in names)
