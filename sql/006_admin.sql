-- What support staff see and do from psql: views without secrets, and two functions.

create or replace view otp.challenges as
select c.id,
       c.email,
       case when c.used_at is not null then 'used'
            when c.attempts >= c.max_attempts then 'exhausted'
            when c.expires_at <= clock_timestamp() then 'expired'
            else 'live' end as state,
       c.attempts,
       c.max_attempts,
       c.created_at,
       c.expires_at,
       c.used_at,
       m.state as mail,
       m.attempts as mail_attempts,
       m.sent_at,
       m.last_reply
  from otp.challenge c left join otp.mail m using (id);

comment on view otp.challenges is 'Every challenge with what became of its mail; for "I never got my code".';
comment on column otp.challenges.state is 'live, used, exhausted (too many wrong guesses) or expired';
comment on column otp.challenges.mail is 'queued, sent, failed or expired';

create or replace view otp.outbox as
select m.id,
       c.email,
       m.state,
       m.attempts,
       case when m.lease is not null and m.next_attempt_at > clock_timestamp() then 'leased'
            when m.next_attempt_at > clock_timestamp() then 'waiting'
            else 'due' end as queue,
       m.next_attempt_at,
       m.give_up_at,
       m.last_reply
  from otp.mail m left join otp.challenge c using (id)
 where m.state = 'queued';

comment on view otp.outbox is 'The mails that wait: due, waiting for their next try, or leased to a worker.';

create or replace view otp.stats as
with recent as materialized (
    select c.used_at, c.attempts, c.max_attempts, c.expires_at, c.created_at, m.state, m.sent_at
      from otp.challenge c left join otp.mail m using (id)
     where c.id >= otp.id_at(now() - interval '1 hour')
)
select (select count(*) from recent) as asked_last_hour,
       (select count(*) from recent where used_at is not null) as used_last_hour,
       (select count(*) from recent where used_at is null and attempts >= max_attempts) as exhausted_last_hour,
       (select count(*) from recent where state = 'sent') as sent_last_hour,
       (select count(*) from recent where state = 'failed') as failed_last_hour,
       (select count(*) from recent where state = 'expired') as unsent_last_hour,
       (select round(1000 * percentile_cont(0.5) within group (order by extract(epoch from sent_at - created_at)))::integer
          from recent where state = 'sent') as median_send_ms,
       (select count(*) from otp.mail where state = 'queued') as queued,
       (select extract(epoch from clock_timestamp() - min(next_attempt_at))::integer
          from otp.mail where state = 'queued') as oldest_due_seconds;

comment on view otp.stats is 'One row: the last hour, and the queue now. oldest_due_seconds above a few seconds: the workers do not keep up.';

-- Lower case and no +tag. For a domain outside ASCII the canonical spelling is looked up where the address was used.
create or replace function otp.spellings(email text)
returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select regexp_replace(lower(spellings.email), '^([^+@]+)\+[^@]*@', '\1@')
    union
    select coalesce(c.mailbox, c.email) from otp.challenge c where lower(c.email) = lower(spellings.email)
$$;

comment on function otp.spellings is 'The canonical spellings under which an address may be stored.';

create or replace function otp.forget(email text)
returns table (challenges bigint, quotas bigint)
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with who as materialized (
        select s from otp.spellings(forget.email) as s
    ), found as materialized (
        -- In the order of ids, as otp.validate locks them.
        select c.id from otp.challenge c
         where coalesce(c.mailbox, c.email) in (select s from who) or lower(c.email) = lower(forget.email)
         order by c.id
           for update
    ), gone as (
        delete from otp.challenge c using found where c.id = found.id returning c.id
    ), mails as (
        delete from otp.mail m using gone where m.id = gone.id
    ), quota as (
        delete from otp.address_quota q where q.mailbox in (select s from who) returning 1
    )
    select (select count(*) from gone), (select count(*) from quota)
$$;

comment on function otp.forget is 'Erases an address, in all its spellings, with its challenges, mails and limits. Returns how many rows went.';

create or replace function otp.unlock(email text)
returns boolean
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from otp.address_quota q where q.mailbox in (select s from otp.spellings(unlock.email) as s) returning 1
    )
    select exists (select from gone)
$$;

comment on function otp.unlock is 'Lifts the sending limits of an address, so that it can be sent a code at once. Spent guesses stay spent. False: no limit was held.';

alter view otp.challenges owner to otp_owner;
alter view otp.outbox owner to otp_owner;
alter view otp.stats owner to otp_owner;
alter function otp.spellings owner to otp_owner;
alter function otp.forget owner to otp_owner;
alter function otp.unlock owner to otp_owner;
revoke all on function otp.spellings, otp.forget, otp.unlock from public;
grant select on otp.challenges, otp.outbox, otp.stats to otp_admin;
-- A view's functions are called as its reader.
grant execute on function otp.forget, otp.unlock, otp.id_at to otp_admin;
