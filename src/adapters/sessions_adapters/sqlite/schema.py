"""Migrations: numbered SQL files, each applied once, in a transaction with the number it leaves behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import attrs

from sessions_core.errors import IncompatibleStoreError


@attrs.frozen
class Migration:
    """One step of the schema."""

    number: int
    script: str


def list_migrations() -> list[Migration]:
    """Return the migrations of this version of the software, in order."""
    return sorted(_load(), key=lambda migration: migration.number)


def _load() -> Iterator[Migration]:
    for file in (files(__package__ or __name__) / "migrations").iterdir():
        number, _, _ = file.name.partition("_")
        if number.isdigit() and file.name.endswith(".sql"):
            yield Migration(int(number), file.read_text(encoding="utf-8"))


def find_pending(connection: sqlite3.Connection, path: Path) -> list[Migration]:
    """Return the migrations that the database still needs.

    Raises:
        IncompatibleStoreError: The database is newer than this software.
    """
    stored = stored_version(connection)
    known = list_migrations()
    if stored > known[-1].number:
        raise IncompatibleStoreError(
            f"{path} has schema version {stored}, but this software knows versions up to {known[-1].number}; "
            "install a newer release, or restore a backup from before the upgrade"
        )
    return [migration for migration in known if migration.number > stored]


def stored_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that was applied; 0 for an empty database."""
    version: int = connection.execute("pragma user_version").fetchone()[0]
    return version


def rewrite_version(connection: sqlite3.Connection) -> None:
    """Write one page without changing anything, in the transaction at hand."""
    connection.execute(f"pragma user_version = {stored_version(connection):d}")


def apply(connection: sqlite3.Connection, migration: Migration) -> None:
    """Apply one migration, all or nothing."""
    try:
        connection.executescript(
            f"begin immediate;\n{migration.script}\npragma user_version = {migration.number:d};\ncommit;"
        )
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
