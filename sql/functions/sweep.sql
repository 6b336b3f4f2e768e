-- The sweep: deletes what has expired, after the retention, in bounded batches. It mimics a TTL, and waits for nobody: a row
-- that somebody works on is left for the next sweep.

create or replace function otp.id_at(moment timestamptz)
returns uuid
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$
    select (repeat('0', 12 - length(hex)) || hex || repeat('0', 20))::uuid
      from to_hex(greatest(0, floor(extract(epoch from moment) * 1000))::bigint) as hex
$$;

comment on function otp.id_at is 'The lowest id of a moment: ids of earlier challenges are below it.';

create or replace function otp.sweep(after uuid, retention_seconds integer, max_count integer)
returns table (deleted integer, last uuid)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    cutoff constant timestamptz := clock_timestamp() - make_interval(secs => retention_seconds);
    start  constant uuid := coalesce(after, '00000000-0000-0000-0000-000000000000');
    bound  constant uuid := otp.id_at(cutoff);
    looks  constant integer := greatest(max_count, 10000);
begin
    if (retention_seconds >= 0 and max_count > 0) is not true then
        raise exception 'otp.sweep: the retention must not be negative, and the count positive'
              using errcode = 'invalid_parameter_value';
    end if;

    -- To look costs little and to delete costs much: rows that stay count less than those that go.
    select looked.id, looked.old into last, deleted
      from (select c.id, count(*) filter (where c.expires_at <= cutoff) over (order by c.id rows unbounded preceding)::integer as old
              from otp.challenge c
             where c.id > start and c.id < bound
             order by c.id
             limit looks) looked
     where looked.old <= max_count
     order by looked.id desc
     limit 1;

    if deleted > 0 then
        with old as materialized (
            select c.id, otp.mails_of(c) as mails from otp.challenge c
             where c.id > start and c.id <= sweep.last and c.expires_at <= cutoff
             order by c.id
               for update skip locked
        ), mails as materialized (
            select m.id, old.id as challenge
              from old cross join unnest(old.mails) as mail_id join otp.mail m on m.id = any (array[mail_id])
               for update of m skip locked
        ), gone as (
            delete from otp.challenge c
             using old
             where c.id = any (array[old.id])
               -- Mails and challenge go together, or not yet.
               and not exists (select from unnest(old.mails) as mail_id join otp.mail m on m.id = any (array[mail_id])
                                where m.id not in (select id from mails))
            returning c.id
        ), unsent as (
            delete from otp.mail m using mails
             where m.id = any (array[mails.id]) and mails.challenge in (select id from gone)
        )
        select count(*) into deleted from gone;
    end if;
    deleted := coalesce(deleted, 0);
    return next;
end
$$;

comment on function otp.sweep is
'Deletes challenges, and their mails, that expired more than retention_seconds ago, up to max_count of them with an id above after (null: from the start). expires_at decides. Rows that somebody has locked stay for the next time. Returns how many went and the last id looked at (null: none left); go on from there.';

create or replace function otp.sweep_quota(from_block bigint, blocks integer)
returns table (deleted integer, next_block bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    size constant bigint := pg_relation_size('otp.address_quota') / current_setting('block_size')::bigint;
    stop constant bigint := least(from_block + blocks, size);
begin
    if (from_block >= 0 and blocks > 0) is not true then
        raise exception 'otp.sweep_quota: the block must not be negative, and their number positive'
              using errcode = 'invalid_parameter_value';
    end if;

    with idle as materialized (
        select q.mailbox from otp.address_quota q
         where q.ctid >= format('(%s,0)', from_block)::tid
           and q.ctid < format('(%s,0)', stop)::tid
           and q.sent[1] <= clock_timestamp() - interval '1 day'
           for update skip locked
    )
    delete from otp.address_quota q using idle where q.mailbox = any (array[idle.mailbox]);
    get diagnostics deleted = row_count;
    next_block := case when stop >= size then 0 else stop end;
    return next;
end
$$;

comment on function otp.sweep_quota is
'Deletes the quota rows of addresses that were sent nothing for a day, from a range of table blocks (no index is needed); rows in use stay. Returns the block to go on with; 0: the end was reached.';
