-- What support staff see from psql: views without secrets.

create view otp.challenges as
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

create view otp.outbox as
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

create view otp.stats as
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
