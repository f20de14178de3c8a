-- What append_records does, for one record: the usual case of a lone writer, which need not pay for arrays.
create function append_record(
    wanted bytea, named_guard text, named_part bytea, content bytea, texts text,
    given_now bigint, window_records bigint, window_ms bigint
) returns table (seq bigint, is_new boolean, stamp bigint, refused_by text)
language plpgsql
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    now_ms bigint;
    actual text;
    prune_at bigint;
    earlier bigint;
    earlier_stamp bigint;
begin
    select c.guard, c.next_seq, c.last_timestamp, c.prune_at into actual, seq, stamp, prune_at
    from channel c where c.id = wanted for update;
    if not found then
        return;
    end if;
    now_ms := ms_or(given_now);
    stamp := greatest(now_ms, stamp);
    if named_part is not null then
        select p.seq, p.timestamp into earlier, earlier_stamp from part p where p.channel = wanted and p.part = named_part;
    end if;
    is_new := coalesce(earlier < seq - window_records and earlier_stamp < now_ms - window_ms, true);
    if not is_new then
        seq := earlier;
    elsif actual <> named_guard or actual like 'sealed:%' then
        refused_by := actual;
    else
        insert into record (channel, seq, timestamp, body, headers) values (wanted, seq, stamp, content, texts);
        if earlier is not null then
            update part p set seq = seq, timestamp = stamp where p.channel = wanted and p.part = named_part;
        elsif named_part is not null then
            insert into part (channel, part, seq, timestamp) values (wanted, named_part, seq, stamp);
        end if;
        update channel c set next_seq = seq + 1, last_timestamp = stamp where c.id = wanted;
        if named_part is not null and seq + 1 > prune_at then
            perform prune_parts(wanted, seq + 1 - window_records, now_ms - window_ms, window_records);
        end if;
    end if;
    return next;
end $$;
