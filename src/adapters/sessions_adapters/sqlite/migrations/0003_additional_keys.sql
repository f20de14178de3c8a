-- An additional key is listed by its name, until when it works, and when it was last used; it is never deleted.
alter table access_key add column name text not null default '';
alter table access_key add column revoked_at integer;
alter table access_key add column last_used_at integer;
create index access_key_additional on access_key (environment) where scopes is not null;
