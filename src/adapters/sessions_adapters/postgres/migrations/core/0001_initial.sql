-- Moments are cut to whole milliseconds before they get here. JSON is kept as its text (`json`, not `jsonb`): it comes back
-- as it was given, nothing here looks inside, and a record's data may contain U+0000, which `jsonb` refuses. Texts are
-- compared byte by byte where their order or their equality decides.
-- There are no foreign keys: rows of one session are written in one statement, and nothing is deleted.

-- The store's time, unless a time is given (a test's).
create function now_or(given timestamptz) returns timestamptz language sql stable
    return coalesce(given, date_trunc('milliseconds', statement_timestamp()));

create table environment (
    number bigint generated always as identity,
    id text collate "C" not null primary key,
    organization_id text collate "C" not null,
    project_id text collate "C" not null,
    type text not null,
    created_at timestamptz(3) not null
);

-- Keys are found by their SHA-256. A root key has no scopes and is kept encrypted; of any other key there is no more.
create table access_key (
    number bigint generated always as identity,
    hash text collate "C" not null primary key,
    environment_id text collate "C" not null,
    scopes text[],
    sealed bytea,
    created_at timestamptz(3) not null,
    expires_at timestamptz(3)
);
create index access_key_root on access_key (environment_id) where scopes is null;

create table used_token (
    environment_id text collate "C" not null,
    hash text collate "C" not null,
    expires_at timestamptz not null,
    primary key (environment_id, hash)
);
create index used_token_expired on used_token (expires_at);

create table session (
    id text collate "C" not null primary key,
    environment_id text collate "C" not null,
    organization_id text collate "C" not null,
    project_id text collate "C" not null,
    environment_type text not null,
    external_id text collate "C",
    type text collate "C" not null,
    task_identifier text collate "C" not null,
    trigger_config json not null,
    tags text[] collate "C" not null,
    metadata json,
    current_run_id text collate "C",
    current_run_version bigint not null,
    epoch bigint not null,
    closed_at timestamptz(3),
    closed_reason text,
    expires_at timestamptz(3),
    sealed_at timestamptz(3),
    is_test boolean not null,
    created_at timestamptz(3) not null,
    updated_at timestamptz(3) not null
) with (fillfactor = 80);
create unique index session_external_id on session (environment_id, external_id);
create index session_closed_unsealed on session (closed_at, id) where sealed_at is null and closed_at is not null;
create index session_expiring on session (expires_at, id)
    where sealed_at is null and closed_at is null and expires_at is not null;

-- Runs, and by that the history of a session's runs: each claim makes one row.
create table run (
    id text collate "C" not null primary key,
    session_id text collate "C" not null,
    task_identifier text not null,
    payload json not null,
    config json not null,
    reason text not null,
    version bigint not null,
    created_at timestamptz(3) not null,
    status text collate "C" not null,
    attempt bigint not null,
    epoch bigint not null,
    previous_run_id text,
    start_cursor bigint not null,
    start_out_tail bigint not null,
    end_cursor bigint,
    end_out_tail bigint,
    failures bigint not null,
    dispatch_after timestamptz(3),
    dispatched_at timestamptz(3),
    started_at timestamptz(3),
    heartbeat_at timestamptz(3),
    ended_at timestamptz(3),
    settled_at timestamptz(3),
    error text
) with (fillfactor = 80);
create unique index run_history on run (session_id, version);
create index run_undispatched on run (created_at, id)
    where dispatched_at is null and status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE');
create index run_dispatched on run (id)
    where dispatched_at is not null and status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE');
create index run_executing on run (id) where status = 'EXECUTING';
create index run_unsettled on run (ended_at, id) where settled_at is null and ended_at is not null;

create table waitpoint (
    id text collate "C" not null primary key,
    channel bytea not null,
    environment_id text collate "C" not null,
    key text not null,
    io text not null,
    name text not null,
    run_id text not null,
    after_seq bigint not null,
    created_at timestamptz(3) not null,
    expires_at timestamptz(3),
    idempotency_key text,
    idempotency_expires_at timestamptz(3),
    tags text[] not null,
    status text collate "C" not null,
    output json,
    seq bigint,
    completed_at timestamptz(3)
);
create index waitpoint_waiting on waitpoint (id) where status = 'WAITING';
create index waitpoint_channel on waitpoint (channel, id) where status = 'WAITING';
create index waitpoint_due on waitpoint (expires_at, id) where status = 'WAITING' and expires_at is not null;

-- Who holds an idempotency key, which may be longer than an index takes: its SHA-256.
create table waitpoint_key (
    environment_id text collate "C" not null,
    hash text collate "C" not null,
    waitpoint_id text collate "C" not null,
    expires_at timestamptz(3),
    primary key (environment_id, hash)
);

-- Who is to be woken by an append.
create table wait_member (
    channel bytea not null,
    waitpoint_id text collate "C" not null,
    keep_until timestamptz not null,
    primary key (channel, waitpoint_id)
);
