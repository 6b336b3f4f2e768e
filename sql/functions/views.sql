-- What support staff see from psql: views without secrets.

create or replace function otp.reference(id uuid)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select translate(lpad((('x' || right(replace(id::text, '-', ''), 6))::bit(24)::integer % 1000)::text, 3, '0'),
                       '0123456789', 'CDHJMPRTWX') $$;

comment on function otp.reference is 'The letters that the answer and the mails of a challenge show: its id''s last three bytes modulo 1000, a letter for each of three digits.';

create view otp.challenges as
select c.id,
       otp.reference(c.id) as reference,
       c.email,
       c.application,
       c.purpose,
       case when c.used_at is not null then 'used'
            when c.revoked_at is not null then 'revoked'
            when c.attempts >= c.max_attempts then 'exhausted'
            when c.expires_at <= clock_timestamp() then 'expired'
            else 'live' end as state,
       c.is_test as test,
       c.attempts,
       c.max_attempts,
       c.created_at,
       c.expires_at,
       c.used_at,
       c.revoked_at,
       m.state as mail,
       m.attempts as mail_attempts,
       m.sent_at,
       m.last_reply,
       coalesce(cardinality(c.resent), 0) as resends
  from otp.challenge c left join otp.mail m on m.id = coalesce(c.resent[1], c.id);

comment on view otp.challenges is 'Every token with what became of its newest mail; for "I never got my code". By address: otp.tokens_of.';
comment on column otp.challenges.reference is 'The letters in the answer and in the mails';
comment on column otp.challenges.state is 'live, used, revoked, exhausted (too many wrong guesses) or expired';
comment on column otp.challenges.test is 'A test address: its code is fixed, and no mail is sent';
comment on column otp.challenges.mail is 'queued, sent, failed or expired; null: a test address';

create view otp.outbox as
select m.id,
       otp.reference(c.id) as reference,
       c.email,
       c.application,
       c.purpose,
       m.state,
       m.attempts,
       case when m.lease is not null and m.next_attempt_at > clock_timestamp() then 'leased'
            when m.next_attempt_at > clock_timestamp() then 'waiting'
            else 'due' end as queue,
       m.next_attempt_at,
       m.give_up_at,
       m.last_reply
  from otp.mail m left join otp.challenge c on c.id = coalesce(m.challenge, m.id)
 where m.state = 'queued';

comment on view otp.outbox is 'The mails that wait: due, waiting for their next try, or leased to a worker.';

create view otp.stats as
with recent as materialized (
    select c.used_at, c.attempts, c.max_attempts, c.created_at, c.resent, m.state, m.sent_at
      from otp.challenge c left join otp.mail m on m.id = coalesce(c.resent[1], c.id)
     where c.id >= otp.id_at(now() - interval '1 hour') and not c.is_test
)
select (select count(*) from recent) as asked_last_hour,
       (select count(*) from recent where used_at is not null) as used_last_hour,
       (select count(*) from recent where used_at is null and attempts >= max_attempts) as exhausted_last_hour,
       (select count(*) from recent where state = 'sent') as sent_last_hour,
       (select count(*) from recent where state = 'failed') as failed_last_hour,
       (select count(*) from recent where state = 'expired') as unsent_last_hour,
       (select round(1000 * percentile_cont(0.5) within group (order by extract(epoch from sent_at - created_at)))::integer
          from recent where state = 'sent' and resent is null) as median_send_ms,
       (select count(*) from otp.mail where state = 'queued') as queued,
       (select extract(epoch from clock_timestamp() - min(next_attempt_at))::integer
          from otp.mail where state = 'queued') as oldest_due_seconds;

comment on view otp.stats is 'One row: the last hour, and the queue now. median_send_ms: of tokens that needed no second mail. oldest_due_seconds above a few seconds: the workers do not keep up.';

create view otp.domains as
select split_part(lower(coalesce(c.recipient, c.email) collate "C"), '@', -1) as domain,
       count(*) as asked,
       count(*) filter (where m.state = 'sent') as sent,
       count(*) filter (where m.state = 'queued' and m.attempts > 0 and m.lease is null) as deferred,
       count(*) filter (where m.state = 'failed') as failed,
       count(*) filter (where c.used_at is not null) as used,
       round(percentile_cont(0.5) within group (order by extract(epoch from c.used_at - c.created_at)))::integer as median_seconds_to_use
  from otp.challenge c left join otp.mail m on m.id = coalesce(c.resent[1], c.id)
 where c.id >= otp.id_at(now() - interval '1 hour') and not c.is_test
 group by 1
 order by asked desc;

comment on view otp.domains is 'The last hour by recipient domain: a domain with many asked and few used does not take our mail, or shows it late.';
