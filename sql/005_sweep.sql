-- The sweep: deletes what has expired, after the retention, in bounded batches. It mimics a TTL.

create or replace function otp.id_at(moment timestamptz)
returns uuid
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select (lpad(to_hex(greatest(0, floor(extract(epoch from moment) * 1000))::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

comment on function otp.id_at is 'The lowest id of a moment: ids of earlier challenges are below it.';

create or replace function otp.sweep(after uuid, retention_seconds integer, lifetime_seconds integer, max_count integer)
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
    bound  constant uuid := otp.id_at(cutoff - make_interval(secs => lifetime_seconds));
begin
    select candidate.id into last
      from (select c.id from otp.challenge c
             where c.id > start and c.id < bound
             order by c.id
             limit max_count) candidate
     order by candidate.id desc
     limit 1;

    with gone as (
        delete from otp.challenge c
         where c.id > start and c.id <= sweep.last and c.expires_at <= cutoff
        returning c.id
    ), unsent as (
        delete from otp.mail m using gone where m.id = any (array[gone.id])
    )
    select count(*) into deleted from gone;
    return next;
end
$$;

comment on function otp.sweep is
'Deletes challenges, and their mails, that expired more than retention_seconds ago. Looks at up to max_count rows with an id above after (null: from the start), of challenges older than retention and lifetime; expires_at decides. Returns how many went and the last id looked at (null: none left); go on from there.';

create or replace function otp.sweep_quota(from_block bigint, blocks integer)
returns table (deleted integer, next_block bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    size constant bigint := pg_relation_size('otp.address_quota') / current_setting('block_size')::bigint;
    stop constant bigint := least(from_block + blocks, size);
begin
    delete from otp.address_quota q
     where q.ctid >= format('(%s,0)', from_block)::tid
       and q.ctid < format('(%s,0)', stop)::tid
       and q.sent[1] <= clock_timestamp() - interval '1 day';
    get diagnostics deleted = row_count;
    next_block := case when stop >= size then 0 else stop end;
    return next;
end
$$;

comment on function otp.sweep_quota is
'Deletes the quota rows of addresses that were sent nothing for a day, from a range of table blocks (no index is needed). Returns the block to go on with; 0: the end was reached.';

alter function otp.id_at owner to otp_owner;
alter function otp.sweep owner to otp_owner;
alter function otp.sweep_quota owner to otp_owner;
revoke all on function otp.id_at, otp.sweep, otp.sweep_quota from public;
grant execute on function otp.sweep, otp.sweep_quota to otp_worker;
