-- What replication keeps beside its slot. None of these tables is in its publication.

-- How far a backfill of the index has come, by the slot that streams what changes meanwhile. A new slot forgets it.
create table backfill (
    slot text collate "C" not null primary key,
    started_at timestamptz(3) not null,
    after_id text collate "C",
    done bigint not null,
    ended_at timestamptz(3)
);

-- Changes that the index will never have, until a person has looked at them. The key tells one change from another: a hash of
-- all but the reason. Versions are whole numbers below 2^64.
create table dead_letter (
    number bigint generated always as identity primary key,
    key bytea not null unique,
    kind text not null,
    session_id text collate "C",
    version numeric(20) not null,
    reason text not null,
    columns json not null,
    stored_at timestamptz(3) not null default now_or(null)
);
