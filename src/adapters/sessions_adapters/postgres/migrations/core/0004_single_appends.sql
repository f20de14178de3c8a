-- What append_records does, for one record that is new: the usual case of a lone writer, which need not pay for arrays.
-- Everything else, and what is found to be otherwise, is left to append_records. Between the look for the part id and the
-- lock another process may store a record with that id; then the insert of the part fails, and with it the whole call, which
-- has to be repeated with append_records.
create function append_record(
    wanted bytea, named_guard text, named_part bytea, content bytea, texts text,
    given_now bigint, window_records bigint, window_ms bigint
) returns table (seq bigint, is_new boolean, stamp bigint, refused_by text)
language plpgsql
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    now_ms bigint := ms_or(given_now);
    prune_at bigint;
begin
    if named_part is null or not exists (select from part p where p.channel = wanted and p.part = named_part) then
        update channel c set next_seq = c.next_seq + 1, last_timestamp = greatest(now_ms, c.last_timestamp)
        where c.id = wanted and c.guard = named_guard and c.guard not like 'sealed:%'
        returning c.next_seq - 1, c.last_timestamp, c.prune_at into seq, stamp, prune_at;
    end if;
    if seq is null then
        return query select * from append_records(
            array[0], array[wanted], array[named_guard], array[named_part], array[content], array[texts],
            1, given_now, window_records, window_ms
        );
        return;
    end if;
    insert into record (channel, seq, timestamp, body, headers) values (wanted, seq, stamp, content, texts);
    if named_part is not null then
        insert into part (channel, part, seq, timestamp) values (wanted, named_part, seq, stamp);
        if seq + 1 > prune_at then
            perform prune_parts(wanted, seq + 1 - window_records, now_ms - window_ms, window_records);
        end if;
    end if;
    is_new := true;
    return next;
end $$;
