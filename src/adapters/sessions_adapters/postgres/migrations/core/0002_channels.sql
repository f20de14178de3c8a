-- Channels. `id` is a hash of the address, so nobody has to look it up; the address stands beside it for people.
-- Times are Unix milliseconds here: they are compared with nothing but each other.
-- Records before first_seq are no longer kept; of those, the ones from swept_seq on are still to be deleted.
-- A row is rewritten by every append: there is room for that on its page, and no index has a column that changes.
create table channel (
    id bytea not null primary key,
    environment_id text collate "C" not null,
    key text collate "C" not null,
    io text not null,
    name text not null,
    guard text not null default 'idle:0',
    next_seq bigint not null default 0,
    first_seq bigint not null default 0,
    swept_seq bigint not null default 0,
    last_timestamp bigint not null default 0,
    prune_at bigint not null default 0
) with (fillfactor = 50);
create index channel_unswept on channel (id) where swept_seq < first_seq;

create table record (
    channel bytea not null,
    seq bigint not null,
    timestamp bigint not null,
    body bytea not null,
    headers text,
    primary key (channel, seq)
);

-- Part ids apart from the records, so that they outlive a trim and go without touching the records' pages.
create table part (
    channel bytea not null,
    part bytea not null,
    seq bigint not null,
    timestamp bigint not null,
    primary key (channel, part)
);

create function ms_or(given bigint) returns bigint language sql volatile
    return coalesce(given, floor(extract(epoch from clock_timestamp()) * 1000)::bigint);

-- Part ids that have left the window go in bulk, once for about as many records as there are part ids to look at, so an
-- append's share does not grow.
create function prune_parts(wanted bytea, upto bigint, before bigint, window_records bigint) returns void
language plpgsql as $$
declare
    kept bigint;
begin
    delete from part where channel = wanted and seq < upto and timestamp < before;
    select count(*) into kept from part where channel = wanted;
    update channel set prune_at = next_seq + greatest(window_records, kept) where id = wanted;
end $$;

-- Appends of several writers at once. One element of the arrays is one record; records with one `request` are stored all
-- or none; a request has one channel and names one guard. No part id comes twice for a channel.
-- Locks first, in the order of ids, so that concurrent calls cannot deadlock, and looks then: each statement of a function
-- sees what was committed before it began, so a part id that another process stored a moment ago is found.
-- If one of the channels has no row, nothing is stored and there is no answer.
-- The plan is made once for each connection, perhaps while the tables are empty, and has to be right when they are large.
create function append_records(
    requests int[], channels bytea[], guards text[], parts bytea[], bodies bytea[], texts text[],
    channel_count int, given_now bigint, window_records bigint, window_ms bigint
) returns table (seq bigint, is_new boolean, stamp bigint, refused_by text)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    found_count int;
    now_ms bigint;
    due record;
begin
    perform 1 from channel where id = any(channels) order by id for update;
    get diagnostics found_count = row_count;
    if found_count < channel_count then
        return;
    end if;
    now_ms := ms_or(given_now);
    return query
    with given as (
        select * from unnest(requests, channels, guards, parts, bodies, texts)
            with ordinality as t(request, channel, guard, part, body, text, number)
    ), looked_up as (
        select g.*, c.guard as actual, c.next_seq, greatest(now_ms, c.last_timestamp) as stamp,
            case when p.seq >= c.next_seq - window_records or p.timestamp >= now_ms - window_ms then p.seq end as known
        from given g
        join channel c on c.id = g.channel
        left join part p on p.channel = g.channel and p.part = g.part
    ), judged as (
        select l.*,
            (l.guard <> l.actual or l.actual like 'sealed:%')
                and bool_or(l.known is null) over (partition by l.request) as is_refused
        from looked_up l
    ), placed as (
        select j.*, j.known is null and not j.is_refused as is_placed,
            j.next_seq - 1 + count(*) filter (where j.known is null and not j.is_refused)
                over (partition by j.channel order by j.number) as seq
        from judged j
    ), stored as (
        insert into record (channel, seq, timestamp, body, headers)
        select p.channel, p.seq, p.stamp, p.body, p.text from placed p where p.is_placed
    ), remembered as (
        insert into part (channel, part, seq, timestamp)
        select p.channel, p.part, p.seq, p.stamp from placed p where p.is_placed and p.part is not null
        on conflict on constraint part_pkey do update set seq = excluded.seq, timestamp = excluded.timestamp
    ), moved as (
        update channel c set next_seq = t.top + 1, last_timestamp = t.stamp
        from (
            select p.channel, max(p.seq) as top, max(p.stamp) as stamp from placed p where p.is_placed group by p.channel
        ) t
        where c.id = t.channel
    )
    select case when p.is_placed then p.seq else p.known end, p.known is null, p.stamp, case when p.is_refused then p.actual end
    from placed p
    order by p.number;
    if array_remove(parts, null) <> '{}' then
        for due in select c.id, c.next_seq from channel c where c.id = any(channels) and c.next_seq > c.prune_at loop
            perform prune_parts(due.id, due.next_seq - window_records, now_ms - window_ms, window_records);
        end loop;
    end if;
end $$;

-- Compare and set a guard. Whether the new one rises above the expected one is decided by the caller.
create function set_guard(
    wanted bytea, new_guard text, expected text, if_tail bigint, rises boolean
) returns table (done boolean, actual text, tail bigint)
language plpgsql set enable_seqscan = off as $$
begin
    select c.guard, c.next_seq into actual, tail from channel c where c.id = wanted for update;
    done := coalesce(rises and actual = expected and coalesce(if_tail, tail) = tail, false);
    if done then
        update channel set guard = new_guard where id = wanted;
        actual := new_guard;
    end if;
    if actual is not null then
        return next;
    end if;
end $$;

-- Append a trim command, and let the records before first_kept go, but none from the command on.
create function trim_channel(
    wanted bytea, named_guard text, command bytea, texts text, first_kept bigint, given_now bigint
) returns table (seq bigint, stamp bigint, refused_by text)
language plpgsql as $$
#variable_conflict use_variable
begin
    select a.seq, a.stamp, a.refused_by into seq, stamp, refused_by
    from append_records(
        array[0], array[wanted], array[named_guard], array[null::bytea], array[command], array[texts],
        1, given_now, 0, 0
    ) a;
    if seq is not null then
        update channel c set first_seq = greatest(c.first_seq, least(first_kept, seq)) where c.id = wanted;
    end if;
    if seq is not null or refused_by is not null then
        return next;
    end if;
end $$;

-- Delete some of the records that were let go; tell whether there are more.
create function sweep_channel(wanted bytea, step bigint) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
    head channel;
    upto bigint;
begin
    select * into head from channel where id = wanted for update;
    upto := least(head.swept_seq + step, head.first_seq);
    delete from record where channel = wanted and seq >= head.swept_seq and seq < upto;
    update channel set swept_seq = upto where id = wanted;
    return upto < head.first_seq;
end $$;
