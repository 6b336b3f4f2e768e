-- Delivery: a worker claims mails under a lease, sends them outside any transaction, and settles what became of them.
-- Rows are found by key whatever the plan was made for (see requests.sql). The settings of otp.claim_mail make it walk the
-- queue's index from its head, however long the queue is.

create or replace function otp.ms_of(id uuid)
returns bigint
language sql immutable
as $$ select ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint $$;

comment on function otp.ms_of is 'The moment in a time-ordered id, in ms since 1970.';

create or replace function otp.code_end(c otp.challenge, mail uuid)
returns timestamptz
language sql immutable
as $$ select case when c.earlier is null then c.expires_at
                  else coalesce((c.earlier[array_position(otp.mails_of(c), mail) - 1]).expires_at, c.expires_at) end $$;

comment on function otp.code_end is 'When the code in a challenge''s mail ends: the newest code''s end is the challenge''s own.';

create or replace function otp.outbox_depth(max_count integer)
returns integer
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if (max_count > 0) is not true then
        raise exception 'otp.outbox_depth: the count must be positive' using errcode = 'invalid_parameter_value';
    end if;
    return (select count(*) from (select from otp.mail m where m.state = 'queued' limit max_count) waiting);
end
$$;

comment on function otp.outbox_depth is 'How many mails wait to be sent, counted up to max_count.';

create or replace function otp.expire_mail(max_count integer)
returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    moment  constant timestamptz := clock_timestamp();
    expired integer;
begin
    if (max_count > 0) is not true then
        raise exception 'otp.expire_mail: the count must be positive' using errcode = 'invalid_parameter_value';
    end if;

    with head as materialized (
        select m.id, m.give_up_at from otp.mail m
         where m.state = 'queued' and m.next_attempt_at <= moment
         order by m.next_attempt_at
         limit max_count
    ), late as materialized (
        select m.id from head join otp.mail m on m.id = any (array[head.id])
         where head.give_up_at <= moment and m.next_attempt_at <= moment
           and (m.state = 'queued') is true -- said so that the queue's index does not offer itself
           for update of m skip locked
    )
    update otp.mail m
       set state = 'expired', sealed = null, lease = null
      from late
     where m.id = any (array[late.id]);
    get diagnostics expired = row_count;
    return expired;
end
$$;

comment on function otp.expire_mail is
'Marks as expired what comes too late among the first max_count mails of the queue that are due, and erases its codes. Returns how many.';

create or replace function otp.claim_mail(max_count integer)
returns table (id uuid, lease uuid, recipient text, locale text, sealed bytea, mail_key smallint,
               created_ms bigint, expires_ms bigint, attempts integer, lease_ms integer, doubts integer,
               challenge uuid, application text, purpose text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
    moment    constant timestamptz := clock_timestamp();
    new_lease constant uuid := gen_random_uuid();
begin
    if (max_count > 0) is not true then
        raise exception 'otp.claim_mail: the count must be positive' using errcode = 'invalid_parameter_value';
    end if;

    -- What comes too late leaves the queue first, so that it cannot crowd out what can still be sent. Only the head of the
    -- queue is looked at: the rest gets there, and a claim must not cost more the longer the queue is.
    if exists (select from (select m.give_up_at from otp.mail m
                             where m.state = 'queued' and m.next_attempt_at <= moment
                             order by m.next_attempt_at
                             limit max_count) head
                where head.give_up_at <= moment) then
        perform otp.expire_mail(1000);
    end if;

    return query
    with due as materialized (
        select m.id, coalesce(m.challenge, m.id) as challenge from otp.mail m
         where m.state = 'queued' and m.next_attempt_at <= moment and m.give_up_at > moment
         order by m.next_attempt_at
         limit max_count
           for update skip locked
    )
    -- A lease is as long as the life that is left at give_up_at, and nothing is claimed after that: it ends in time.
    update otp.mail m
       set lease = new_lease,
           next_attempt_at = moment + least(otp.code_end(c, m.id) - m.give_up_at, interval '1 minute'),
           attempts = m.attempts + 1
      from due join otp.challenge c on c.id = any (array[due.challenge])
     where m.id = any (array[due.id])
    returning m.id, m.lease, coalesce(c.recipient, c.email), m.locale, m.sealed, m.mail_key,
              case when m.challenge is null then (extract(epoch from c.created_at) * 1000)::bigint else otp.ms_of(m.id) end,
              (extract(epoch from otp.code_end(c, m.id)) * 1000)::bigint,
              m.attempts::integer,
              (extract(epoch from m.next_attempt_at - moment) * 1000)::integer,
              m.doubts::integer,
              c.id, c.application, c.purpose;
end
$$;

comment on function otp.claim_mail is
'Takes up to max_count mails that are due, under a lease: nobody else gets them for lease_ms, which ends before the code does. created_ms and expires_ms: when the mail''s code was asked for, and when it ends. Mails whose code has too little life left become expired instead.';

create or replace function otp.settle_mail(
    ids           uuid[],
    leases        uuid[],
    outcomes      text[],
    replies       text[],
    retry_seconds integer[],
    ages_ms       integer[],
    doubts        integer[])
returns table (ord integer, settled boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := clock_timestamp();
begin
    if (cardinality(leases) = cardinality(ids) and cardinality(outcomes) = cardinality(ids)
        and cardinality(replies) = cardinality(ids) and cardinality(retry_seconds) = cardinality(ids)
        and cardinality(ages_ms) = cardinality(ids) and cardinality(doubts) = cardinality(ids)) is not true
       or exists (select from unnest(ids, leases, outcomes, retry_seconds, ages_ms, doubts)
                             as t (id, lease, outcome, retry_seconds, age_ms, doubts)
                   where (t.id is not null and t.lease is not null and t.outcome in ('sent', 'retry', 'failed', 'release')
                          and t.age_ms >= 0 and t.doubts >= 0
                          and case t.outcome when 'retry' then t.retry_seconds >= 0 else true end) is not true)
       or (select count(distinct id) from unnest(ids) id) < cardinality(ids) then
        raise exception 'otp.settle_mail: arrays must be of one length, each mail there once, an outcome sent, retry (after some seconds), failed or release, ages and doubts not negative'
              using errcode = 'invalid_parameter_value';
    end if;

    return query
    with told as materialized (
        select t.ord::integer as ord, t.id, t.lease, t.outcome, t.reply, t.doubts,
               moment - make_interval(secs => t.age_ms / 1000.0) as happened,
               moment + make_interval(secs => coalesce(t.retry_seconds, 0)) as again
          from unnest(ids, leases, outcomes, replies, retry_seconds, ages_ms, doubts) with ordinality
               as t (id, lease, outcome, reply, retry_seconds, age_ms, doubts, ord)
         order by t.id
    ), done as (
        update otp.mail m
           set state = case t.outcome when 'sent' then 'sent'
                                      when 'failed' then 'failed'
                                      else 'queued' end::otp.mail_state,
               sealed = case when t.outcome in ('retry', 'release') then m.sealed end,
               sent_at = case when t.outcome = 'sent' then t.happened end,
               doubts = t.doubts,
               last_reply = coalesce(t.reply, m.last_reply),
               attempts = m.attempts - case when t.outcome = 'release' then 1 else 0 end,
               lease = null,
               -- The last try comes no later than a minute before giving up, if there is time for it. What is given up then
               -- leaves the queue at that moment.
               next_attempt_at = case when moment < m.give_up_at - interval '1 minute'
                                      then least(t.again, m.give_up_at - interval '1 minute')
                                      else least(t.again, m.give_up_at) end
          from told t
         where m.id = any (array[t.id]) and m.lease = t.lease -- only a queued mail has one
        returning t.ord
    )
    select ord, ord in (select ord from done) from told;
end
$$;

comment on function otp.settle_mail is
'Records what became of claimed mails, one element each: sent, failed (for good), retry (after retry_seconds) or release (not tried); how many milliseconds ago; and how many doubts there are now. A mail whose lease has passed to another claim is left alone (settled = false).';
