"""No secret is compared with what somebody has sent in a way that tells by its time how much of a guess was right.

Keys are found by their hash, signatures are compared by :func:`hmac.compare_digest`. What is compared with ``==`` although its name
sounds like a secret is listed here, with the reason why that tells nobody anything.
"""

from __future__ import annotations

import ast
import hmac
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sessions_core.domain.environment import RootKey
from sessions_server.auth import tokens

ROOT: Final = Path(__file__).parents[3]
FOLDERS: Final = ("src", "examples")
WORDS: Final = re.compile(
    r"\b(keys?|tokens?|secrets?|passwords?|signatures?|credentials?|hash(es|ed)?|digests?|mac|bearer|authorization)\b"
)
COMPARED: Final = {
    "(data, url, encryption_key) != (None, None, None)": "whether it was given at all",
    "token == UNSCOPED_TOKEN": "a setting with a word that everybody may know",
    "key.environment_id == environment_id": "an id",
    "key.environment_id != environment_id": "an id",
    "header[0] != PUBLIC_ACCESS_TOKEN": "the name of a header of records",
    "known.keys == ring.keys": "what the store said before with what it says now; nobody else has a part in it",
    "opened_by == credential": "credentials of open streams with each other; all of them have been admitted",
    "batch.fencing_token == first.fencing_token": "S2's fencing token: an epoch, no secret",
    "str(guard) == token": "the same",
    "members.keys() == other.keys()": "names of the members of JSON",
}


def words_of(node: ast.AST) -> str:
    """Return the names in an expression, apart."""
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
    names += [each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)]
    return " ".join(names).replace("_", " ").lower()


def comparisons(tree: ast.AST) -> Iterator[str]:
    """Yield the comparisons for equality in which something sounds like a secret."""
    for node in ast.walk(tree):
        is_equality = isinstance(node, ast.Compare) and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)
        if is_equality and WORDS.search(words_of(node)):
            yield ast.unparse(node)


def suspects() -> Iterator[tuple[Path, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for text in comparisons(ast.parse(path.read_text())):
                yield path, text


def test_what_sounds_like_a_secret_is_compared_nowhere_but_where_it_is_known_to_be_none() -> None:
    found = {text: path for path, text in suspects()}
    assert {text: str(path) for text, path in found.items() if text not in COMPARED} == {}
    assert COMPARED.keys() <= found.keys(), "a reason for what is not there any more"


@pytest.mark.parametrize(
    "text",
    [
        "key == given",
        "grant.hash != hashed",
        "self._token == token",
        "a.signature == b",
        "mac == request.digest",
        "password != x",
    ],
)
def test_a_plain_comparison_would_be_found(text: str) -> None:
    assert list(comparisons(ast.parse(f"if {text}: pass"))) == [text]


def functions(path: Path, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            yield ast.unparse(node)


def test_every_store_finds_keys_by_their_hash() -> None:
    stores = sorted((ROOT / "src/adapters").rglob("environment_store.py"))
    found = {path.parent.name: text for path in stores for text in functions(path, "find_grant")}
    assert found.keys() == {"memory", "postgres", "sqlite"}
    assert [name for name, text in found.items() if "key_hash(key)" not in text] == []


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What is compared in constant time."""
    seen: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def spy(one: Any, other: Any) -> bool:
        seen.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    return seen


def test_signatures_of_tokens_are_compared_in_constant_time(compared: list[tuple[Any, Any]]) -> None:
    key, others = RootKey(value="tr_dev_" + "a" * 24), [RootKey(value="tr_dev_" + letter * 24) for letter in "bc"]
    token = tokens.sign({"sub": "env_1"}, key)
    assert tokens.signed_claims(token, key)
    assert [tokens.signed_claims(token, other) for other in others] == [None, None]
    assert len(compared) == 3
