"""docs/reference/permissions.md says what the table of permissions says."""

from __future__ import annotations

from harness.permissions import BLOCK, PAGE, tables, with_tables


def test_the_tables_are_as_the_code_makes_them() -> None:
    text = PAGE.read_text()
    assert [name for _, name, _ in BLOCK.findall(text)] == list(tables())
    assert text == with_tables(text), "PYTHONPATH=tests .venv/bin/python -m harness.permissions"
