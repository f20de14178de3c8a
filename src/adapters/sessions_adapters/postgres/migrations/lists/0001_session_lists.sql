-- What lists of sessions are read along: all of an environment, and those with a tag.
create index session_page on session (environment_id, created_at, id);

create table session_tag (
    environment_id text collate "C" not null,
    tag text collate "C" not null,
    created_at timestamptz(3) not null,
    id text collate "C" not null,
    primary key (environment_id, tag, created_at, id)
);

-- The tags follow the sessions by themselves: the store need not know whether it is asked for lists.
create function follow_tags() returns trigger language plpgsql set search_path from current as $$
begin
    if tg_op <> 'INSERT' then
        delete from session_tag
        where environment_id = old.environment_id and tag = any(old.tags) and created_at = old.created_at and id = old.id;
    end if;
    if tg_op <> 'DELETE' then
        insert into session_tag (environment_id, tag, created_at, id)
        select new.environment_id, tag, new.created_at, new.id from (select distinct unnest(new.tags) as tag) as given;
    end if;
    return null;
end $$;
create trigger session_tagged after insert on session for each row when (new.tags <> '{}') execute function follow_tags();
create trigger session_retagged after update of tags on session
    for each row when (new.tags is distinct from old.tags) execute function follow_tags();
create trigger session_untagged after delete on session for each row execute function follow_tags();

insert into session_tag (environment_id, tag, created_at, id)
select distinct environment_id, unnest(tags) collate "C", created_at, id from session;
