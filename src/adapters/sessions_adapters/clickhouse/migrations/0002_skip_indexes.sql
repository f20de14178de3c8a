-- Filters that admit few sessions skip most of the table.
ALTER TABLE sessions_v1 ADD INDEX IF NOT EXISTS tags_index tags TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE sessions_v1 ADD INDEX IF NOT EXISTS external_id_index external_id TYPE bloom_filter(0.01) GRANULARITY 1;
