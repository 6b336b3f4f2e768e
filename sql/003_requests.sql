-- The two request functions. Each takes arrays, one element per request of a batch, and is one transaction.

-- Plans are made once per connection and must not depend on the size of a table: rows are found by their keys, in the
-- order of the batch, which is sorted, so that two batches lock rows in the same order. The settings below fix that, and
-- "= any (array[...])" instead of "=": with that, an empty table's plan is a walk of the whole index, kept when it has grown.

create or replace function otp.generate(
    ids              uuid[],
    emails           text[],
    recipients       text[],
    mailboxes        text[],
    macs             bytea[],
    mac_key          smallint,
    sealed           bytea[],
    mail_key         smallint,
    locales          text[],
    lifetime_seconds integer,
    max_attempts     integer,
    resend_seconds   integer,
    per_hour         integer,
    per_day          integer)
returns table (ord integer, retry_after integer)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    moment  constant timestamptz := clock_timestamp();
    expiry  constant timestamptz := moment + make_interval(secs => lifetime_seconds);
    give_up constant timestamptz := expiry - make_interval(secs => least(60, lifetime_seconds / 4));
    counted constant boolean := resend_seconds > 0 or per_hour > 0 or per_day > 0;
    keep    constant integer := greatest(per_hour, per_day, 1);
begin
    return query
    with ask as materialized (
        select a.ord::integer as ord, a.id, a.email, a.recipient, a.mailbox, a.mac, a.code, a.locale,
               coalesce(a.mailbox, a.email) collate "C" as quota
          from unnest(ids, emails, recipients, mailboxes, macs, sealed, locales) with ordinality
               as a (id, email, recipient, mailbox, mac, code, locale, ord)
         order by quota
    ), taken as (
        insert into otp.address_quota as q (mailbox, sent)
        select quota, array[moment] from ask where counted
        on conflict (mailbox) do update set sent = (moment || q.sent)[1:keep]
         where (resend_seconds = 0 or q.sent[1] <= moment - make_interval(secs => resend_seconds))
           and (per_hour = 0 or q.sent[per_hour] is null or q.sent[per_hour] <= moment - interval '1 hour')
           and (per_day = 0 or q.sent[per_day] is null or q.sent[per_day] <= moment - interval '1 day')
        returning mailbox
    ), admitted as materialized (
        select ask.* from ask where not counted or quota in (select mailbox from taken)
    ), stored as (
        insert into otp.challenge (id, email, recipient, mailbox, code_mac, mac_key, max_attempts, created_at, expires_at)
        select id, email, recipient, mailbox, mac, mac_key, max_attempts, moment, expiry from admitted
    ), queued as (
        insert into otp.mail (id, sealed, mail_key, locale, next_attempt_at, give_up_at)
        select id, code, mail_key, locale, moment, give_up from admitted
    )
    select ask.ord,
           case when ask.ord in (select ord from admitted) then 0
                else otp.retry_after(ask.quota, moment, resend_seconds, per_hour, per_day) end
      from ask;
end
$$;

comment on function otp.generate is
'Stores a batch of challenges with their mails, one element per request, as far as the limits per address allow. A mailbox may be in a batch once. Returns, per request (ord, from 1), 0 if it was stored, or the seconds after which it may be asked again.';

create or replace function otp.retry_after(
    mailbox        text,
    moment         timestamptz,
    resend_seconds integer,
    per_hour       integer,
    per_day        integer)
returns integer
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select greatest(1, ceil(extract(epoch from greatest(
               case when resend_seconds > 0 then q.sent[1] + make_interval(secs => resend_seconds) end,
               case when per_hour > 0 then q.sent[per_hour] + interval '1 hour' end,
               case when per_day > 0 then q.sent[per_day] + interval '1 day' end) - moment)))::integer
      from otp.address_quota q
     where q.mailbox = retry_after.mailbox
$$;

comment on function otp.retry_after is 'Seconds until a mailbox may be sent a code again (volatile: it must see what another batch has just committed).';

create or replace function otp.validate(
    ids           uuid[],
    macs          bytea[],
    mac_key       smallint,
    previous_macs bytea[],
    previous_key  smallint)
returns table (ord integer, verdict text, attempts_left integer, email text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    return query
    with ask as materialized (
        select a.ord::integer as ord, a.id, a.mac, a.previous_mac
          from unnest(ids, macs, previous_macs) with ordinality as a (id, mac, previous_mac, ord)
         order by a.id
    ), evaluated as (
        update otp.challenge c
           set attempts = c.attempts + 1,
               used_at = case when c.code_mac = case c.mac_key
                                                when validate.mac_key then ask.mac
                                                when validate.previous_key then ask.previous_mac end
                              then clock_timestamp() end
          from ask
         where c.id = any (array[ask.id])
           and c.used_at is null
           and c.attempts < c.max_attempts
           and c.expires_at > clock_timestamp()
        returning ask.ord, c.used_at is not null as valid, c.max_attempts - c.attempts as attempts_left, c.email
    )
    select ord, case when valid then 'valid' else 'wrong_password' end, attempts_left::integer, case when valid then email end
      from evaluated
    union all
    select ord, otp.refusal(id), null, null
      from ask
     where ord not in (select ord from evaluated);
end
$$;

comment on function otp.validate is
'Evaluates a batch of guesses, one element per request: counts each attempt and consumes the challenge on a match. A token may be in a batch once. A null mac is a guess that cannot be right. Returns, per request (ord, from 1), the verdict: valid, wrong_password, expired, used, exhausted or unknown_token.';

create or replace function otp.refusal(id uuid)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    c otp.challenge;
begin
    select * into c from otp.challenge where challenge.id = refusal.id;
    return case when not found then 'unknown_token'
                when c.used_at is not null then 'used'
                when c.attempts >= c.max_attempts then 'exhausted'
                else 'expired' end;
end
$$;

comment on function otp.refusal is 'Why a challenge takes no guess (volatile: it must see what another batch has just committed).';

alter function otp.generate owner to otp_owner;
alter function otp.retry_after owner to otp_owner;
alter function otp.validate owner to otp_owner;
alter function otp.refusal owner to otp_owner;
revoke all on function otp.generate, otp.retry_after, otp.validate, otp.refusal from public;
grant execute on function otp.generate to otp_generate;
grant execute on function otp.validate to otp_validate;

create or replace function otp.schema_version()
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select 1 $$;

comment on function otp.schema_version is 'What programs ask at connect: they need at least the version that they were made for (src/db/schema_version.h).';

alter function otp.schema_version owner to otp_owner;
revoke all on function otp.schema_version from public;
grant execute on function otp.schema_version to otp_generate, otp_validate, otp_worker, otp_admin;
