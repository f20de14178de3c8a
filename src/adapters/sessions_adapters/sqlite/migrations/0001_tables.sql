-- Times are Unix milliseconds, JSON is text, texts are compared byte by byte (SQLite's default).

-- Channels. A row is made by the first write. `name` is an empty blob for a session's own pair.
-- The next seq is not stored: the last record of a channel is never dropped, so it is that record's plus one.
-- Records before first_seq are no longer kept; of those, the ones from swept_seq on are still to be deleted.
create table channel (
    id integer primary key,
    environment not null,
    key not null,
    io text not null,
    name not null,
    guard text not null,
    first_seq integer not null default 0,
    swept_seq integer not null default 0
);
create unique index channel_address on channel (environment, key, io, name);
create index channel_unswept on channel (id) where swept_seq < first_seq;

-- Records go to the right-hand end of one table, whatever their channel: a commit of many channels writes few pages.
create table log (
    id integer primary key,
    channel integer not null,
    seq integer not null,
    timestamp integer not null,
    body blob not null,
    headers text
);
create unique index log_seq on log (channel, seq);

-- Part ids apart from the records, so that they outlive a trim and go without touching the log's pages.
create table part (
    channel integer not null,
    part blob not null,
    seq integer not null,
    timestamp integer not null,
    primary key (channel, part)
) without rowid;

create table session (
    id text not null primary key,
    environment text not null,
    organization text not null,
    project text not null,
    environment_type text not null,
    external_id text,
    type text not null,
    task text not null,
    trigger_config text not null,
    tags text not null,
    metadata text,
    created_at integer not null,
    updated_at integer not null,
    current_run_id text,
    current_run_version integer not null,
    epoch integer not null,
    closed_at integer,
    closed_reason text,
    expires_at integer,
    sealed_at integer,
    is_test integer not null
);
create unique index session_external_id on session (environment, external_id) where external_id is not null;
create index session_page on session (environment, created_at, id);
create index session_closed_unsealed on session (closed_at, id) where sealed_at is null and closed_at is not null;
create index session_expiring on session (expires_at, id)
    where sealed_at is null and closed_at is null and expires_at is not null;

-- A list filtered by a tag reads along this key, in the order of the page.
create table session_tag (
    environment text not null,
    tag text not null,
    created_at integer not null,
    id text not null,
    primary key (environment, tag, created_at, id)
) without rowid;

-- Runs, and by that the history of a session's runs: each claim makes one row.
create table run (
    id text not null primary key,
    session_id text not null,
    task text not null,
    payload text not null,
    config text not null,
    reason text not null,
    version integer not null,
    created_at integer not null,
    status text not null,
    attempt integer not null,
    epoch integer not null,
    previous_run_id text,
    start_cursor integer not null,
    start_out_tail integer not null,
    end_cursor integer,
    end_out_tail integer,
    failures integer not null,
    dispatch_after integer,
    dispatched_at integer,
    started_at integer,
    heartbeat_at integer,
    ended_at integer,
    settled_at integer,
    error text
);
create unique index run_history on run (session_id, version);
create index run_undispatched on run (created_at, id)
    where dispatched_at is null and status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE');
create index run_dispatched on run (id)
    where dispatched_at is not null and status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE');
create index run_executing on run (heartbeat_at, id) where status = 'EXECUTING';
create index run_unsettled on run (ended_at, id) where settled_at is null and ended_at is not null;

create table waitpoint (
    id text not null primary key,
    environment text not null,
    key text not null,
    io text not null,
    name text,
    run_id text not null,
    after_seq integer not null,
    created_at integer not null,
    expires_at integer,
    idempotency_key text,
    idempotency_expires_at integer,
    tags text not null,
    status text not null,
    output text,
    seq integer,
    completed_at integer
);
create index waitpoint_idempotency on waitpoint (environment, idempotency_key) where idempotency_key is not null;
create index waitpoint_waiting on waitpoint (id) where status = 'WAITING';
create index waitpoint_due on waitpoint (expires_at, id) where status = 'WAITING' and expires_at is not null;

create table environment (
    id text not null primary key,
    organization text not null,
    project text not null,
    type text not null,
    created_at integer not null
);

-- Keys are found by their SHA-256. A root key has no scopes and is kept encrypted; of any other key there is no more.
create table access_key (
    hash text not null primary key,
    environment text not null,
    scopes text,
    sealed blob,
    created_at integer not null,
    expires_at integer
);
create index access_key_root on access_key (environment) where scopes is null;

create table used_token (
    environment text not null,
    hash text not null,
    expires_at integer not null,
    primary key (environment, hash)
) without rowid;
create index used_token_expired on used_token (expires_at);
