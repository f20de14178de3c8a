"""Public access tokens: JWTs signed with HS256 under a root key of their environment.

Nothing but the environment's root keys can make one, so whoever holds a root key may sign tokens without asking us.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs
import jwt
from jwt.algorithms import HMACAlgorithm

from sessions_core.domain.access import run_scopes, session_scopes
from sessions_core.domain.environment import Environment, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.ports.session_tokens import SessionTokens

ISSUER: Final = "https://id.trigger.dev"
AUDIENCE: Final = "https://api.trigger.dev"
ROLLING: Final = "rolling"
"""A claim of session tokens that were given out without an end: their holder may have a fresh one after each turn."""
COUNTED_AS: Final = "counted_as"
"""A claim that says under which name a token's requests and streams are counted; a token without it has a name of its own."""
_COUNT_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ENOUGH: Final = 32
"""So many digits of a hash tell names apart."""
_ALGORITHM: Final = "HS256"


class _RootKeyHmac(HMACAlgorithm):
    """HMAC with our root keys: 31 characters of which 24 are random, never a PEM file or a JWK."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> str | None:  # noqa: ARG002 - their entropy is known
        return None


def _make_signer() -> jwt.PyJWS:
    signer = jwt.PyJWS(algorithms=[])
    signer.register_algorithm(_ALGORITHM, _RootKeyHmac(HMACAlgorithm.SHA256))
    return signer


_SIGNER: Final = _make_signer()


@attrs.frozen(kw_only=True)
class PublicToken:
    """A verified token.

    Attributes:
        counted_as: The name under which its requests and streams are counted.
        key: The root key that signed it.
        expires_at: Unix seconds.
        one_time: For a one-time token the hash under which its use is remembered, else None.
        is_rolling: Whether its holder may have a fresh one before it ends.
    """

    environment: Environment
    counted_as: str
    scopes: tuple[str, ...]
    key: RootKey
    expires_at: float
    one_time: str | None = None
    is_rolling: bool = False


def peek_environment(token: str) -> str | None:
    """Return the environment id that *token* claims if it looks like a public token, unverified; else None."""
    claims = peek_claims(token)
    if claims is None or claims.get("pub") is not True:
        return None
    subject = claims.get("sub")
    return subject if isinstance(subject, str) else ""


def peek_claims(token: str) -> dict[str, Any] | None:
    """Return what *token* claims if it looks like a signed token, unverified; else None."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def verify(token: str, environment: Environment, keys: Sequence[RootKey], now: datetime) -> PublicToken | None:
    """Verify *token* with whichever of *keys* signed it; None if none did, or if it does not hold at *now*."""
    for key in keys:
        claims = signed_claims(token, key) if key.is_valid(now) else None
        if claims is not None:
            return _accept(token, claims, environment, key, now.timestamp())
    return None


def sign(claims: Mapping[str, Any], key: RootKey) -> str:
    """Return a token with *claims*, issuer and audience put in. Its header is only ``{"alg":"HS256"}``."""
    payload = {**claims, "iss": ISSUER, "aud": AUDIENCE}
    # Not as ASCII: escapes would make the token of a long external id too large for a header.
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return _SIGNER.encode(text.encode(), key.value, algorithm=_ALGORITHM, headers={"typ": None})


def mint(
    environment_id: EnvironmentId,
    scopes: Sequence[str],
    key: RootKey,
    *,
    start: int,
    end: int,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Return a public token that works from *start* to *end*, in Unix seconds. Every token that we give out is made here."""
    claims = {"sub": environment_id, "pub": True, "scopes": list(scopes), **(extra or {})}
    return sign({**claims, "iat": start, "exp": end}, key)


@attrs.frozen
class SignedSessionTokens(SessionTokens):
    """Session tokens as creators of sessions get them, and tokens for those who carry out runs.

    Attributes:
        lifetime: Of a session token.
        run_lifetime: Of a run token: the longest that the run may wait in its engine's queue.
    """

    lifetime: timedelta
    run_lifetime: timedelta = timedelta(days=1)

    def issue(self, session: Session, key: RootKey, now: datetime) -> str:
        return _roll(session.environment.id, session_scopes(session.key), key, now, self.lifetime)

    def issue_for_run(self, run: RunRecord, key: RootKey, now: datetime) -> str:
        return _roll(run.environment.id, run_scopes(run.id, run.key), key, now, self.run_lifetime)


def _roll(environment_id: EnvironmentId, scopes: Sequence[str], key: RootKey, now: datetime, life: timedelta) -> str:
    """Return a token whose holder may have a fresh one before it ends."""
    start = int(now.timestamp())
    extra = {ROLLING: True, **counted_by(scopes)}
    return mint(environment_id, scopes, key, start=start, end=start + int(life.total_seconds()), extra=extra)


def counted_by(scopes: Sequence[str]) -> dict[str, str]:
    """Return the claim by which all tokens with these *scopes* that have it are counted together."""
    return {COUNTED_AS: count_name("\n".join(scopes))}


def count_name(text: str) -> str:
    """Return a short name for all that is counted as *text*, which it does not show."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_ENOUGH]


def name_claimed(claims: Mapping[str, Any]) -> str | None:
    """Return under which name signed *claims* want to be counted; None if they name none, or one that is no name."""
    name = claims.get(COUNTED_AS)
    return name if isinstance(name, str) and _COUNT_NAME.fullmatch(name) else None


def signed_claims(token: str, key: RootKey) -> dict[str, Any] | None:
    """Return what *token* claims if *key* has signed it, whatever that is; else None."""
    try:
        signed = _SIGNER.decode_complete(token, key.value, algorithms=[_ALGORITHM])
        claims = json.loads(signed["payload"])
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _accept(
    token: str, claims: dict[str, Any], environment: Environment, key: RootKey, now: float
) -> PublicToken | None:
    expires_at = end_of(claims, now)
    if expires_at is None or claims.get("pub") is not True or claims.get("sub") != environment.id:
        return None
    hashed = token_hash(token)
    return PublicToken(
        environment=environment,
        counted_as=name_claimed(claims) or hashed[:_ENOUGH],
        scopes=_scopes(claims.get("scopes")),
        key=key,
        expires_at=expires_at,
        one_time=hashed if claims.get("otu") is True else None,
        is_rolling=claims.get(ROLLING) is True,
    )


def end_of(claims: Mapping[str, Any], now: float) -> float | None:
    """Return when signed *claims* end, in Unix seconds; None if they do not hold at *now*, or are not for us."""
    audience = claims.get("aud")
    expires_at = _seconds(claims.get("exp"))
    if (
        claims.get("iss") != ISSUER
        or (audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience))
        or expires_at is None
        or expires_at <= now
        or ("nbf" in claims and not _has_begun(claims["nbf"], now))
    ):
        return None
    return expires_at


def _has_begun(value: Any, now: float) -> bool:
    start = _seconds(value)
    return start is not None and start <= now


def _scopes(value: Any) -> tuple[str, ...]:
    """Read the claim leniently: what is not understood grants nothing."""
    return tuple(scope for scope in value if isinstance(scope, str)) if isinstance(value, list) else ()


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def token_hash(token: str) -> str:
    """Hash what is signed. The signature itself can be spelled in several ways, so it does not count."""
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()
