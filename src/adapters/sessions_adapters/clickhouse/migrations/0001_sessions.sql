-- One row per version of a session; a reader says FINAL and sees the one with the largest _version, unless it is deleted.
-- session_id and friendly_id are the same text. Times are UTC whatever the server's time zone is.
CREATE TABLE IF NOT EXISTS sessions_v1 (
    environment_id String,
    organization_id String,
    project_id String,
    session_id String,
    environment_type LowCardinality(String),
    friendly_id String,
    external_id String DEFAULT '',
    type LowCardinality(String),
    task_identifier String DEFAULT '',
    tags Array(String) CODEC(ZSTD(1)),
    metadata JSON(max_dynamic_paths = 256),
    closed_at Nullable(DateTime64(3, 'UTC')),
    closed_reason String DEFAULT '',
    expires_at Nullable(DateTime64(3, 'UTC')),
    created_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    is_test UInt8 DEFAULT 0,
    _version UInt64,
    _is_deleted UInt8 DEFAULT 0
)
ENGINE = ReplacingMergeTree(_version, _is_deleted)
PARTITION BY toYYYYMM(created_at)
ORDER BY (organization_id, project_id, environment_id, created_at, session_id);
