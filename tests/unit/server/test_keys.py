"""What may be a root key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.server import KEY
from sessions_core.domain.environment import EnvironmentType
from sessions_core.errors import InvalidError
from sessions_server.cli import additional_keys, environments, serve
from sessions_server.cli.keys import new_additional_key, new_root_key, parse_root_key

GOOD = ["tr_dev_" + "a" * 24, "tr_stg_" + "Z" * 30, "tr_prod_" + "0" * 24, "tr_preview_" + "aB3" * 8, KEY]
BAD = [
    "",
    "secret",
    "tr_dev_" + "a" * 23,
    "tr_dev_sk_" + "a" * 24,
    "tr_test_" + "a" * 24,
    "tr_dev_" + "é" * 24,
    "tr_dev_" + "٣" * 24,
    "tr_dev_" + "a" * 24 + "\n",
    " tr_dev_" + "a" * 24,
    "tr_dev_" + "a" * 20 + "-_.!",
]


@pytest.mark.parametrize("key", [*GOOD, *(new_root_key(kind) for kind in EnvironmentType)], ids=range(len(GOOD) + 4))
def test_a_root_key_is_taken_as_it_is(key: str) -> None:
    assert parse_root_key(key, "--key") == key


@pytest.mark.parametrize("key", BAD, ids=range(len(BAD)))
def test_anything_else_is_refused_by_the_name_of_its_option_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidError, match=r"^--dev-key must be tr_<dev") as caught:
        parse_root_key(key, "--dev-key")
    assert not key.strip() or key.strip() not in str(caught.value)


@pytest.mark.parametrize("kind", EnvironmentType)
def test_an_additional_key_has_the_contracts_form_and_is_no_root_key(kind: EnvironmentType) -> None:
    key = new_additional_key(kind)
    assert re.fullmatch(r"tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}", key)
    assert f"_{kind.slug}_" in key
    with pytest.raises(InvalidError):
        parse_root_key(key, "--key")
    assert key != new_additional_key(kind)


def test_every_key_in_the_documents_and_the_help_could_be_one() -> None:
    root = Path(__file__).parents[3]
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    texts = [*(page.read_text() for page in pages), serve.EXAMPLES, environments.EXAMPLES, additional_keys.EXAMPLES]
    keys = [key for text in texts for key in re.findall(r"\btr_[a-z]+_[A-Za-z0-9]+\b", text)]
    assert keys
    for key in keys:
        parse_root_key(key, "--key")
