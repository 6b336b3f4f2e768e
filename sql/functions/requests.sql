-- The two request functions. Each takes arrays, one element per request of a batch, and is one transaction.

-- Plans are made once per connection and must not depend on the size of a table: rows are found by their keys, in the
-- order of the batch, which is sorted, so that two batches lock rows in the same order. The settings below fix that, and
-- "= any (array[...])" instead of "=": with that, an empty table's plan is a walk of the whole index, kept when it has grown.

-- Rules that several functions share. Without a setting of their own the planner puts their bodies where they are called.

create or replace function otp.quota_key(mailbox text, application text, ticket text)
returns text
language sql immutable
as $$ select case when application is null and ticket is null then mailbox
                  else concat(mailbox, ' ', application, ':' || ticket) end collate "C" $$;

comment on function otp.quota_key is 'Under what a mailbox''s mails are counted: by application, and apart for the holder of a ticket.';

create or replace function otp.give_up_at(expiry timestamptz, lifetime_seconds integer)
returns timestamptz
language sql stable
as $$ select expiry - make_interval(secs => least(60, lifetime_seconds / 4)) $$;

comment on function otp.give_up_at is 'From when on a mail is not worth sending: a minute, or a quarter of its life, before the code''s end.';

create or replace function otp.is_code(
    mac bytea, mac_key smallint, guess bytea, guess_key smallint, previous_guess bytea, previous_key smallint)
returns boolean
language sql immutable
as $$ select mac = case mac_key when guess_key then guess when previous_key then previous_guess end $$;

comment on function otp.is_code is 'Is a code''s MAC that of the guess, as made under the code''s own key?';

create or replace function otp.generate(
    ids              uuid[],
    emails           text[],
    recipients       text[],
    mailboxes        text[],
    tickets          text[],
    purposes         text[],
    contexts         bytea[],
    macs             bytea[],
    mac_key          smallint,
    sealed           bytea[],
    mail_key         smallint,
    locales          text[],
    application      text,
    digits           smallint,
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
    give_up constant timestamptz := otp.give_up_at(expiry, lifetime_seconds);
    counted constant boolean := resend_seconds > 0 or per_hour > 0 or per_day > 0;
    keep    constant integer := greatest(per_hour, per_day, 1);
    count   constant integer := cardinality(ids);
begin
    if (cardinality(emails) = count and cardinality(recipients) = count and cardinality(mailboxes) = count
        and cardinality(tickets) = count and cardinality(purposes) = count and cardinality(contexts) = count
        and cardinality(macs) = count and cardinality(sealed) = count and cardinality(locales) = count
        and mac_key > 0 and mail_key > 0 and digits > 0 and lifetime_seconds > 0
        and max_attempts > 0 and resend_seconds >= 0 and per_hour >= 0 and per_day >= 0) is not true then
        raise exception 'otp.generate: arrays must be of one length, keys, digits, lifetime and attempts positive, limits not negative'
              using errcode = 'invalid_parameter_value';
    end if;

    return query
    with ask as materialized (
        select a.ord::integer as ord, a.id, a.email, a.recipient, a.mailbox, a.purpose, a.context, a.mac, a.code, a.locale,
               otp.quota_key(coalesce(a.mailbox, a.email), generate.application, a.ticket) as quota
          from unnest(ids, emails, recipients, mailboxes, tickets, purposes, contexts, macs, sealed, locales) with ordinality
               as a (id, email, recipient, mailbox, ticket, purpose, context, mac, code, locale, ord)
         order by quota
    ), taken as (
        insert into otp.address_quota as q (mailbox, sent)
        select quota, array[moment] from ask where counted
        on conflict (mailbox) do update set sent = (moment || q.sent)[1:keep]
         where otp.may_send(q.sent, moment, resend_seconds, per_hour, per_day)
        returning mailbox
    ), admitted as materialized (
        select ask.* from ask where not counted or quota in (select mailbox from taken)
    ), stored as (
        insert into otp.challenge (id, created_at, expires_at, max_attempts, digits, mac_key, is_test,
                                   email, recipient, mailbox, application, purpose, context, code_mac)
        select id, moment, expiry, max_attempts, digits, mac_key, code is null,
               email, recipient, mailbox, generate.application, purpose, context, mac
          from admitted
    ), queued as (
        insert into otp.mail (id, sealed, mail_key, locale, next_attempt_at, give_up_at)
        select id, code, mail_key, locale, moment, give_up from admitted where code is not null
    )
    select ask.ord,
           case when ask.ord in (select ord from admitted) then 0
                else otp.retry_after(ask.quota, moment, resend_seconds, per_hour, per_day) end
      from ask;
end
$$;

comment on function otp.generate is
'Stores a batch of challenges of one application with their mails, one element per request, as far as the limits per address allow. A mailbox may be in a batch once. Without a sealed code the address is a test address, and gets no mail. A ticket''s holder has limits of his own. Returns, per request (ord, from 1), 0 if it was stored, or the seconds after which it may be asked again.';

create or replace function otp.may_send(sent timestamptz[], moment timestamptz, resend_seconds integer, per_hour integer, per_day integer)
returns boolean
language sql stable
as $$ select (resend_seconds = 0 or sent[1] <= moment - make_interval(secs => resend_seconds))
         and (per_hour = 0 or sent[per_hour] is null or sent[per_hour] <= moment - interval '1 hour')
         and (per_day = 0 or sent[per_day] is null or sent[per_day] <= moment - interval '1 day') $$;

comment on function otp.may_send is 'May a mailbox to which codes were sent at these moments, newest first, be sent another?';

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
    applications  text[],
    purposes      text[],
    contexts      bytea[],
    digits        integer[],
    macs          bytea[],
    mac_key       smallint,
    previous_macs bytea[],
    previous_key  smallint)
returns table (ord integer, verdict text, number integer, email text, mailbox text, purpose text, is_test boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    count constant integer := cardinality(ids);
begin
    if (cardinality(applications) = count and cardinality(purposes) = count and cardinality(contexts) = count
        and cardinality(digits) = count and cardinality(macs) = count
        and array_position(ids, null) is null and mac_key > 0
        and case when previous_key is null then previous_macs is null
                 else previous_key > 0 and cardinality(previous_macs) = count end) is not true then
        raise exception 'otp.validate: arrays must be of one length, ids not null, keys positive, previous macs and key go together'
              using errcode = 'invalid_parameter_value';
    end if;

    return query
    with ask as materialized (
        select a.ord::integer as ord, a.id, a.application, a.purpose, a.context, a.digits, a.mac, a.previous_mac
          from unnest(ids, applications, purposes, contexts, digits, macs, previous_macs) with ordinality
               as a (id, application, purpose, context, digits, mac, previous_mac, ord)
         order by a.id
    ), evaluated as (
        update otp.challenge c
           set attempts = c.attempts + 1,
               used_at = case when otp.is_code(c.code_mac, c.mac_key, ask.mac, validate.mac_key, ask.previous_mac, validate.previous_key)
                                or c.earlier is not null
                                   and exists (select from unnest(c.earlier) e
                                                where e.expires_at > clock_timestamp()
                                                  and otp.is_code(e.mac, e.mac_key, ask.mac, validate.mac_key, ask.previous_mac, validate.previous_key))
                              then clock_timestamp() end
          from ask
         where c.id = any (array[ask.id])
           and c.used_at is null
           and c.revoked_at is null
           and c.attempts < c.max_attempts
           and c.expires_at > clock_timestamp()
           and c.digits = ask.digits
           and c.application is not distinct from ask.application
           and c.purpose is not distinct from ask.purpose
           and c.context is not distinct from ask.context
           and case when c.earlier is null then c.mac_key in (validate.mac_key, validate.previous_key)
                    else otp.unknown_key(c.mac_key, c.earlier, validate.mac_key, validate.previous_key) is null end
        returning ask.ord, c.id, c.used_at is not null as valid, c.max_attempts - c.attempts as attempts_left,
                  c.email, coalesce(c.mailbox, c.email) as mailbox, c.purpose, c.is_test
    )
    select ord, 'valid', null::integer, email, mailbox, purpose, is_test from evaluated where valid
    union all
    select ord, 'wrong_password', attempts_left::integer, null, null, null, null from evaluated where not valid
    union all
    select ord, split_part(reason, ' ', 1), nullif(split_part(reason, ' ', 2), '')::integer, null, null, null, null
      from (select ord, otp.refusal(id, application, purpose, context, digits, validate.mac_key, validate.previous_key,
                                      id in (select id from evaluated)) as reason
              from ask
             where ord not in (select ord from evaluated)) refused;
end
$$;

comment on function otp.validate is
'Evaluates a batch of guesses, one element per request: counts each attempt and consumes the challenge on a match with its newest code or one of the earlier, each within its own life. A token may be in a batch once. Returns, per request (ord, from 1), the verdict: valid; wrong_password (number: the attempts left); or, without a guess being counted: unknown_token (another application''s, too), used, revoked, exhausted, expired, wrong_purpose (or another context), not_a_code (another number of digits than the token''s codes have; 0: what was typed has none), or unknown_key (number: of the key that a live code was made under, and that is not given).';

create or replace function otp.unknown_key(code_key smallint, earlier otp.code[], mac_key smallint, previous_key smallint)
returns smallint
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select case when (code_key in (unknown_key.mac_key, previous_key)) is not true then code_key
                  else (select e.mac_key from unnest(earlier) e
                         where e.expires_at > clock_timestamp() and (e.mac_key in (unknown_key.mac_key, previous_key)) is not true
                         limit 1) end $$;

comment on function otp.unknown_key is 'The number of the key of a challenge''s live code that is not one of the two; null: none.';

-- Why a challenge takes no guess, or no other code, before the rules of the call at hand are looked at.
create or replace function otp.ending(c otp.challenge, application text)
returns text
language sql stable
as $$ select case when c.id is null or c.application is distinct from application then 'unknown_token'
                  when c.used_at is not null then 'used'
                  when c.revoked_at is not null then 'revoked'
                  when c.attempts >= c.max_attempts then 'exhausted' end $$;

comment on function otp.ending is 'What ended a challenge for good, as the application is told; null: nothing did.';

create or replace function otp.refusal(
    id           uuid,
    application  text,
    purpose      text,
    context      bytea,
    digits       integer,
    mac_key      smallint,
    previous_key smallint,
    is_judged    boolean)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    c      otp.challenge;
    ended  text;
    absent smallint;
begin
    if is_judged then
        raise exception 'otp.validate: a token is in the batch twice' using errcode = 'invalid_parameter_value';
    end if;
    select * into c from otp.challenge where challenge.id = refusal.id;
    ended := otp.ending(c, application);
    absent := otp.unknown_key(c.mac_key, c.earlier, mac_key, previous_key);
    case when ended is not null then return ended;
         when c.expires_at <= clock_timestamp() then return 'expired';
         when c.purpose is distinct from purpose or c.context is distinct from context then return 'wrong_purpose';
         when c.digits is distinct from digits then return 'not_a_code';
         when absent is not null then return 'unknown_key ' || absent;
         else return 'expired'; -- it, or a code of it, when the guess came; another code has been asked for, or time has passed since
    end case;
end
$$;

comment on function otp.refusal is 'Why a challenge takes no guess: a verdict of otp.validate, with the key''s number behind unknown_key; an error if its batch has judged it (volatile: it must see what another batch has just committed).';
