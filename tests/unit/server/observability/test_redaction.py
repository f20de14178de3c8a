"""What looks like a credential is not logged, and what does not stays readable."""

from __future__ import annotations

import json
import logging
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.environment import EnvironmentType
from sessions_server.cli.keys import new_additional_key, new_root_key
from sessions_server.observability.logs import JsonFormatter, PlainFormatter
from sessions_server.observability.redaction import redact

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJlbnZfMSJ9.c2lnbmF0dXJlLW9mLWl0"


@pytest.mark.parametrize("kind", EnvironmentType)
def test_keys_are_hidden(kind: EnvironmentType) -> None:
    root, additional = new_root_key(kind), new_additional_key(kind)
    assert redact(f"{root}, '{additional}'") == f"tr_{kind.slug}_***, 'tr_{kind.slug}_sk_***'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token={TOKEN}", "token=eyJ***"),
        (f"{TOKEN.rpartition('.')[0]}.", "eyJ***"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer ***"),
        ("(b'authorization', b'Bearer x9SFTylt-_x9SFTylt=')", "(b'authorization', b'Bearer ***')"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw fails", "whsec_*** fails"),
        ("cannot reach postgresql://user:pa%40ss@db:5432/x", "cannot reach postgresql://***@db:5432/x"),
        ("redis://:hunter2@127.0.0.1", "redis://***@127.0.0.1"),
        ("s2://:token@basin and http://u:p@h", "s2://***@basin and http://***@h"),
        (f"AUTHORIZATION: BEARER {TOKEN}", "AUTHORIZATION: BEARER ***"),
        (f"token%3D{TOKEN}", "token%3DeyJ***"),
    ],
)
def test_tokens_and_passwords_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "run_cmwqk1uyo91ayew62t8dbss4o of session_x",
        "key_22b332984d743ae532e7fb76",
        "http://127.0.0.1:8787/realtime/v1/sessions/a@b/in",
        "tr_dev_short, tr_prod_ and tr_test_" + "a" * 24,
        "a bearer of news, Bearer",
        "eyJ is no token, nor is eyJhbGciOiJIUzI1NiJ9",
        "me@example.test",
        "",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a", "tr_", "eyJ", "eyJa-", "://", "://x:", "Bearer ", "whsec_", "eyJaaaaaaaaa."])
def test_a_long_line_costs_no_more_than_its_length(piece: str) -> None:
    redact(piece * 300_000)  # a second at most; with steps that grow with the square it would take hours


letters = string.ascii_letters + string.digits
SECRETS = st.one_of(
    st.builds(
        "tr_{}_{}{}".format,
        st.sampled_from(["dev", "stg", "prod"]),
        st.sampled_from(["", "sk_"]),
        st.text(letters, min_size=24, max_size=24),
    ),
    st.builds("eyJ{}.eyJ{}.{}".format, *[st.text(letters + "-_", min_size=12, max_size=30)] * 3),
    st.text(letters + "+/", min_size=24, max_size=40).map("whsec_{}".format),
    st.builds(
        "://{}:{}@".format, st.text(letters, max_size=8), st.text(letters + "%!$&()*+,;=:", min_size=8, max_size=20)
    ),
    st.text(letters + "-._~+/", min_size=16, max_size=40).map("Bearer {}".format),
)
around = st.text(max_size=30) | st.text("tr_devsk:/@. \"'=[]{}eyJBearwhsc-", max_size=30)


@given(
    st.lists(
        st.tuples(
            around,
            st.sampled_from([" ", "'", '"', "(", "=", "\n"]),
            SECRETS,
            st.sampled_from([" ", "'", '"', ")", "\n"]),
        ),
        max_size=4,
    ),
    around,
)
def test_a_secret_is_hidden_wherever_it_stands(pieces: list[tuple[str, str, str, str]], end: str) -> None:
    shown = redact("".join("".join(piece) for piece in pieces) + end)
    openly_said = "".join(piece[0] for piece in pieces) + end
    for _, _, secret, _ in pieces:
        assert secret not in shown
        last = secret.rstrip("@")[-12:]
        assert last not in shown or last in openly_said
    assert redact(shown) == shown


@given(st.characters(max_codepoint=127).filter(lambda before: not (before.isalnum() or before in "-_")), SECRETS)
def test_a_secret_is_hidden_also_where_what_stands_before_it_was_escaped(before: str, secret: str) -> None:
    for written in (
        json.dumps(f"x{before}{secret} "),
        ascii(f"x{before}{secret} "),
        quote(f"x{before}", safe="") + secret,
    ):
        assert secret not in redact(written)


@given(around)
def test_redacting_never_fails_and_never_makes_up_words(text: str) -> None:
    assert set(redact(text)) <= {*text, "*", "@"}


def test_lines_of_both_forms_hide_what_messages_fields_and_exceptions_show() -> None:
    key = new_root_key(EnvironmentType.PRODUCTION)
    try:
        raise RuntimeError(f"refused:\n{key}")
    except RuntimeError as error:
        failed = logging.LogRecord("x", 40, "f", 1, "as %s", (key,), (RuntimeError, error, error.__traceback__))
    failed.url = f"http://x:{key}@host/"
    failed.request = f"GET / HTTP/1.1\r\n\t{key}\nBearer {TOKEN}\n{TOKEN}"
    plain, line = PlainFormatter().format(failed), JsonFormatter().format(failed)
    assert key not in plain + line
    assert TOKEN not in plain + line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["url"]) == ("as tr_prod_***", "http://***@host/")
    assert parsed["exception"].endswith("RuntimeError: refused:\ntr_prod_***")
