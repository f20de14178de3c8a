"""The last net under the log: what looks like a credential is not written, whoever has put it into a message.

Nothing of ours logs one. But agents raise what they like, and drivers log what they like: at the level DEBUG the headers of
requests, say, or an address with its password when it cannot be reached.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = "***"
# Each alternative begins with letters that are rare and looks at a character once, so a long line costs no more than its
# length. What goes before a secret is kept. A letter before one is none if it ends an escape: of JSON, of Python, of a URL.
_ESCAPED: Final = r"(?<= \\[abfnrtv0] ) | (?<= \\x[0-9a-f]{2} ) | (?<= \\u[0-9a-f]{4} ) | (?<= %[0-9A-Fa-f]{2} )"
_CREDENTIAL: Final = re.compile(
    rf"""
      (?: (?<!\w) | {_ESCAPED} ) (?P<key> tr_ (?: dev | stg | prod | preview ) _ (?: sk_ )? ) [A-Za-z0-9]{{24,}}
    | (?: (?<! [\w-] ) | {_ESCAPED} ) (?P<token> eyJ ) [\w-]{{8,}} \. [\w-]+ \. [\w-]*
    | (?P<secret> whsec_ ) [A-Za-z0-9+/=_-]+
    | (?P<address> :// ) [^\s/@"'\\]* @
    | (?P<bearer> (?i: bearer [ ] ) ) [^\s"'\\,)\]}}]{{16,}}
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Return *text* without keys, tokens, secrets of webhooks, and users and passwords in addresses."""
    return _CREDENTIAL.sub(_without, text)


def _without(found: re.Match[str]) -> str:
    at = "@" if found["address"] else ""
    return f"{found[found.lastgroup or 0]}{_HIDDEN}{at}"
