-- What a token's holder may ask besides: another code, the end of the token, what became of the mail. In batches, as the two
-- request functions (see requests.sql). Rows are locked challenges first, then mails, then limits, each by its key.

create or replace function otp.resend_terms(ids uuid[], applications text[], retention_seconds integer)
returns table (ord integer, verdict text, email text, mailbox text, locale text, purpose text, context bytea, digits smallint, is_test boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    if (cardinality(applications) = cardinality(ids) and array_position(ids, null) is null
        and retention_seconds >= 0) is not true then
        raise exception 'otp.resend_terms: arrays must be of one length, ids not null, the retention not negative'
              using errcode = 'invalid_parameter_value';
    end if;

    return query
    select a.ord::integer, coalesce(otp.no_resend(c, a.application, retention_seconds), 'ready'),
           c.email, coalesce(c.mailbox, c.email), m.locale, c.purpose, c.context, c.digits, c.is_test
      from unnest(ids, applications) with ordinality as a (id, application, ord)
      left join otp.challenge c on c.id = any (array[a.id])
      left join otp.mail m on m.id = any (array[c.id]);
end
$$;

comment on function otp.resend_terms is
'What another code for these tokens must be made for, one element per request. verdict: ready, or why there is none: unknown_token, used, revoked, exhausted, or expired (for longer than the retention).';

create or replace function otp.no_resend(c otp.challenge, application text, retention_seconds integer)
returns text
language sql stable
as $$ select coalesce(otp.ending(c, application),
                      case when c.expires_at <= clock_timestamp() - make_interval(secs => retention_seconds) then 'expired' end) $$;

comment on function otp.no_resend is 'Why a token gets no other code; null: it does.';

create or replace function otp.resend(
    ids               uuid[],
    mail_ids          uuid[],
    tickets           text[],
    macs              bytea[],
    mac_key           smallint,
    sealed            bytea[],
    mail_key          smallint,
    locales           text[],
    application       text,
    lifetime_seconds  integer,
    resend_seconds    integer,
    per_hour          integer,
    per_day           integer,
    retention_seconds integer)
returns table (ord integer, verdict text, retry_after integer)
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
    counted constant boolean := resend_seconds > 0 or per_hour > 0 or per_day > 0;
    keep    constant integer := greatest(per_hour, per_day, 1);
    count   constant integer := cardinality(ids);
begin
    if (cardinality(mail_ids) = count and cardinality(tickets) = count and cardinality(macs) = count
        and cardinality(sealed) = count and cardinality(locales) = count
        and array_position(ids, null) is null and array_position(mail_ids, null) is null
        and array_position(macs, null) is null and mac_key > 0 and mail_key > 0 and lifetime_seconds > 0
        and resend_seconds >= 0 and per_hour >= 0 and per_day >= 0 and retention_seconds >= 0) is not true then
        raise exception 'otp.resend: arrays must be of one length, ids and macs not null, keys and lifetime positive, limits not negative'
              using errcode = 'invalid_parameter_value';
    end if;

    return query
    with ask as materialized (
        select a.ord::integer as ord, a.id, a.mail_id, a.ticket, a.mac, a.code, a.locale
          from unnest(ids, mail_ids, tickets, macs, sealed, locales) with ordinality
               as a (id, mail_id, ticket, mac, code, locale, ord)
         order by a.id
    ), held as materialized (
        select c.id, otp.mails_of(c) as mails, otp.quota_key(coalesce(c.mailbox, c.email), c.application, ask.ticket) as quota,
               otp.no_resend(c, resend.application, retention_seconds) as reason
          from ask join otp.challenge c on c.id = any (array[ask.id])
           for update of c
    ), wanted as materialized (
        select ask.*, held.quota, held.mails from ask join held on held.id = ask.id where held.reason is null order by held.quota
    ), taken as (
        insert into otp.address_quota as q (mailbox, sent)
        select quota, array[moment] from wanted where counted
        on conflict (mailbox) do update set sent = (moment || q.sent)[1:keep]
         where otp.may_send(q.sent, moment, resend_seconds, per_hour, per_day)
        returning mailbox
    ), admitted as materialized (
        select wanted.* from wanted where not counted or quota in (select mailbox from taken)
    ), renewed as (
        update otp.challenge c
           set earlier = ((c.code_mac, c.mac_key, c.expires_at)::otp.code || c.earlier)[1:2],
               code_mac = a.mac,
               mac_key = resend.mac_key,
               expires_at = greatest(c.expires_at, expiry),
               resent = a.mail_id || c.resent
          from admitted a
         where c.id = any (array[a.id])
    ), unsent as materialized (
        select m.id
          from admitted a cross join unnest(a.mails) as one (id) join otp.mail m on m.id = any (array[one.id])
         where (m.state = 'queued') is true and (m.lease is null or m.next_attempt_at <= moment)
           for update of m skip locked
    ), superseded as (
        update otp.mail m
           set state = 'expired', sealed = null, lease = null, last_reply = 'not sent: another code was asked for'
          from unsent
         where m.id = any (array[unsent.id])
    ), queued as (
        insert into otp.mail (id, challenge, sealed, mail_key, locale, next_attempt_at, give_up_at)
        select mail_id, id, code, mail_key, locale, moment, otp.give_up_at(expiry, lifetime_seconds)
          from admitted where code is not null
    )
    select ask.ord,
           coalesce(held.reason, case when held.id is null then 'unknown_token'
                                      when ask.ord in (select ord from admitted) then 'stored'
                                      else 'rate_limited' end),
           case when held.reason is null and held.id is not null and ask.ord not in (select ord from admitted)
                then otp.retry_after(held.quota, moment, resend_seconds, per_hour, per_day) end
      from ask left join held on held.id = ask.id;
end
$$;

comment on function otp.resend is
'Gives tokens of one application another code and mail, one element per request, as far as the limits per address allow; the codes before it, at most two, live on for their own time, and the guesses stay counted. A mail that still waits is superseded by the new one. A mailbox may be in a batch once. verdict: stored, rate_limited (retry_after: the seconds after which it may be asked again), or a refusal as of otp.resend_terms.';

create or replace function otp.mails_of(c otp.challenge)
returns uuid[]
language sql immutable
as $$ select c.resent || c.id $$;

comment on function otp.mails_of is 'The ids of a challenge''s mails, newest first.';

create or replace function otp.withdraw(challenges uuid[])
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    mails   uuid[];
    taken   uuid[];
    counted bigint;
begin
    mails := array(select one.id from otp.challenge c cross join unnest(otp.mails_of(c)) as one (id) where c.id = any (challenges));
    mails := array(select m.id from otp.mail m where m.id = any (mails) and m.state = 'queued' order by m.id for update);
    taken := array(select m.id from otp.mail m where m.id = any (mails) and m.lease is not null and m.next_attempt_at > clock_timestamp());
    update otp.mail m
       set state = 'expired', sealed = null, lease = null, last_reply = 'not sent: the token was revoked'
     where m.id = any (mails);
    get diagnostics counted = row_count;
    -- A worker that has it in hand looks here before it sends.
    perform pg_notify('otp_mail', one.id::text) from unnest(taken) as one (id);
    return counted;
end
$$;

comment on function otp.withdraw is 'Takes the mails of challenges that wait out of the queue, and tells the workers of those in hand. Returns how many.';

create or replace function otp.revoke_tokens(ids uuid[], applications text[])
returns table (ord integer, verdict text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    found_ids uuid[];
    fresh     uuid[];
begin
    if (cardinality(applications) = cardinality(ids) and array_position(ids, null) is null) is not true then
        raise exception 'otp.revoke_tokens: arrays must be of one length, ids not null' using errcode = 'invalid_parameter_value';
    end if;

    with ask as materialized (
        select a.id, a.application from unnest(ids, applications) as a (id, application) order by a.id
    ), held as materialized (
        select c.id, c.revoked_at
          from ask join otp.challenge c on c.id = any (array[ask.id])
         where c.application is not distinct from ask.application
           for update of c
    )
    select array_agg(id), array_agg(id) filter (where revoked_at is null) into found_ids, fresh from held;
    update otp.challenge c set revoked_at = clock_timestamp() where c.id = any (fresh);
    perform otp.withdraw(fresh);
    return query
    select a.ord::integer, case when a.id = any (found_ids) then 'revoked' else 'unknown_token' end
      from unnest(ids) with ordinality as a (id, ord);
end
$$;

comment on function otp.revoke_tokens is
'Ends tokens, one element per request: they take no more guesses, and a mail that waits is not sent. verdict: revoked (also when it was before), or unknown_token (another application''s, too).';

create or replace function otp.delivery_status(ids uuid[], applications text[])
returns table (ord integer, verdict text, sent_at timestamptz, attempts integer, reason text, is_test boolean)
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
    if (cardinality(applications) = cardinality(ids) and array_position(ids, null) is null) is not true then
        raise exception 'otp.delivery_status: arrays must be of one length, ids not null' using errcode = 'invalid_parameter_value';
    end if;

    return query
    select a.ord::integer,
           case when c.id is null or c.application is distinct from a.application then 'unknown_token'
                when c.is_test then 'sent'
                when m.state <> 'queued' then m.state::text
                when m.lease is not null and m.next_attempt_at > moment then 'sending'
                when m.give_up_at <= moment then 'expired'
                when m.attempts > 0 then 'deferred'
                else 'queued' end,
           m.sent_at, m.attempts::integer,
           case when c.is_test then 'test address: no mail is sent' else m.last_reply end,
           c.is_test
      from unnest(ids, applications) with ordinality as a (id, application, ord)
      left join otp.challenge c on c.id = any (array[a.id])
      left join otp.mail m on m.id = any (array[(otp.mails_of(c))[1]]);
end
$$;

comment on function otp.delivery_status is
'What became of the newest mail of each token: queued, sending, deferred, sent, failed or expired, or unknown_token (another application''s, too). reason: the relay''s last reply, or what kept the mail from it.';
