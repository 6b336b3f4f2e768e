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
    count   constant integer := cardinality(ids);
begin
    if (cardinality(emails) = count and cardinality(recipients) = count and cardinality(mailboxes) = count
        and cardinality(macs) = count and cardinality(sealed) = count and cardinality(locales) = count
        and array_position(sealed, null) is null and mac_key > 0 and mail_key > 0 and lifetime_seconds > 0
        and max_attempts > 0 and resend_seconds >= 0 and per_hour >= 0 and per_day >= 0) is not true then
        raise exception 'otp.generate: arrays must be of one length, keys, lifetime and attempts positive, limits not negative'
              using errcode = 'invalid_parameter_value';
    end if;

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
returns table (ord integer, verdict text, attempts_left integer, email text, unknown_key integer)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    if (cardinality(macs) = cardinality(ids) and array_position(ids, null) is null and mac_key > 0
        and case when previous_key is null then previous_macs is null
                 else previous_key > 0 and cardinality(previous_macs) = cardinality(ids) end) is not true then
        raise exception 'otp.validate: arrays must be of one length, ids not null, keys positive, previous macs and key go together'
              using errcode = 'invalid_parameter_value';
    end if;

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
           and c.mac_key in (validate.mac_key, validate.previous_key)
        returning ask.ord, c.used_at is not null as valid, c.max_attempts - c.attempts as attempts_left, c.email
    )
    select ord, case when valid then 'valid' else 'wrong_password' end, attempts_left::integer, case when valid then email end,
           null::integer
      from evaluated
    union all
    select ord, split_part(reason, ' ', 1), null, null, nullif(split_part(reason, ' ', 2), '')::integer
      from (select ord, otp.refusal(id, validate.mac_key, validate.previous_key) as reason
              from ask
             where ord not in (select ord from evaluated)) refused;
end
$$;

comment on function otp.validate is
'Evaluates a batch of guesses, one element per request: counts each attempt and consumes the challenge on a match. A token may be in a batch once. A null mac is a guess that cannot be right. Returns, per request (ord, from 1), the verdict: valid, wrong_password, expired, used, exhausted, unknown_token, or unknown_key (with its number): the code was made under a key that is not given, so that no guess can be evaluated, and none is counted.';

create or replace function otp.refusal(id uuid, mac_key smallint, previous_key smallint)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    moment constant timestamptz := clock_timestamp();
    c      otp.challenge;
begin
    select * into c from otp.challenge where challenge.id = refusal.id;
    if c.expires_at > moment and c.used_at is null and c.attempts < c.max_attempts
       and c.mac_key in (mac_key, previous_key) then
        raise exception 'otp.validate: a token is in the batch twice' using errcode = 'invalid_parameter_value';
    end if;
    return case when c.id is null then 'unknown_token'
                when c.used_at is not null then 'used'
                when c.attempts >= c.max_attempts then 'exhausted'
                when c.expires_at <= moment then 'expired'
                else 'unknown_key ' || c.mac_key end;
end
$$;

comment on function otp.refusal is 'Why a challenge takes no guess: a verdict of otp.validate, with the key''s number behind unknown_key (volatile: it must see what another batch has just committed).';
