"""Which systems a server's settings choose."""

from __future__ import annotations

from datetime import timedelta

import attrs

from sessions_adapters.profiles import CLICKHOUSE, Backends, ReplicationSettings
from sessions_core.errors import InvalidError
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_server.config import INSERT_ASYNC, REPLICATION_PREFIX, Config, ReplicationVariables, variable_of


def backends_of(config: Config) -> Backends:
    """Return what *config* says about them, in fields of the same names; what it does not say is the profile's choice.

    Raises:
        InvalidError: No such profile or index, or a database for a profile that uses none.
    """
    said = {field.name: getattr(config, field.name) for field in attrs.fields(Backends)}
    return Backends(**{name: value for name, value in said.items() if value is not None})


def replication_of(config: Config, given: ReplicationVariables) -> ReplicationSettings:
    """Return what *given* says about replication; where the systems are, *config* may have said already.

    Raises:
        InvalidError: The profile has no database to replicate from, or one of the addresses is missing.
    """
    if not backends_of(config).uses_postgres:
        raise InvalidError(variable_of("profile"), f"{config.profile} cannot be replicated: choose postgres or scale")
    leader_check = min(given.leader_lock_extend_interval_ms, given.leader_lock_retry_interval_ms)
    return ReplicationSettings(
        database_url=_needed(given.database_url or config.database_url, "database_url"),
        clickhouse_url=_needed(given.clickhouse_url or config.clickhouse_url, "clickhouse_url"),
        slot=given.slot_name,
        publication=given.publication_name,
        replicator=_replicator_of(given),
        leader_check=timedelta(milliseconds=leader_check),
        insert_async=given.insert_strategy == INSERT_ASYNC,
        keep_alive=_keep_alive_of(given),
        workers=given.max_open_connections,
        retained_bytes=given.retained_wal_warning_mb << 20,
    )


def find_replication(config: Config, given: ReplicationVariables) -> ReplicationSettings | None:
    """Return how this is to be replicated; None if it is not, or cannot be.

    It is where ``SESSION_REPLICATION_ENABLED`` says so, and where lists are read from ClickHouse.
    """
    backends = backends_of(config)
    if not (given.enabled or backends.index == CLICKHOUSE):
        return None
    try:
        return replication_of(config, given)
    except InvalidError:
        if given.enabled:
            raise
        return None  # an address is missing, which is told with its system


def _replicator_of(given: ReplicationVariables) -> ReplicatorConfig:
    return ReplicatorConfig(
        flush_batch_size=given.flush_batch_size,
        flush_interval=timedelta(milliseconds=given.flush_interval_ms),
        flush_concurrency=given.max_flush_concurrency,
        insert_attempts=given.insert_max_retries,
        insert_base_delay=timedelta(milliseconds=given.insert_base_delay_ms),
        insert_max_delay=timedelta(milliseconds=given.insert_max_delay_ms),
        leader_lock_timeout=timedelta(milliseconds=given.leader_lock_timeout_ms),
        leader_lock_additional_time=timedelta(milliseconds=given.leader_lock_additional_time_ms),
    )


def _keep_alive_of(given: ReplicationVariables) -> timedelta | None:
    if not given.keep_alive_enabled:
        return timedelta()
    longest = given.keep_alive_idle_socket_ttl_ms
    return None if longest is None else timedelta(milliseconds=longest)


def _needed(url: str | None, name: str) -> str:
    if not url:
        names = f"{variable_of(name, REPLICATION_PREFIX)} or {variable_of(name)}"
        raise InvalidError(names, "must be set: replication needs it")
    return url
