-- What support staff do from psql. All rows of an address go, so these wait for locks, but in the order in which all others
-- take them: challenges, mails, limits, each by its key.

-- As otp-generate spells it (src/otp/address.c): lower case, without +tag, without what the provider ignores; only letters
-- outside ASCII are left as they are. Lower case is that of ASCII, whatever the database's language.
create or replace function otp.canonical(email text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    with typed (local, domain) as (
        select regexp_replace(left(text, -length(split_part(text, '@', -1)) - 1), '^"(.*)"$', '\1'), split_part(text, '@', -1)
          from lower(btrim(email) collate "C") as text
    ), untagged as (
        select regexp_replace(local, '^([^+]+)\+.*$', '\1') as local, domain from typed
    ), provided as (
        select local, case domain when 'googlemail.com' then 'gmail.com' else domain end as domain,
               case when domain in ('gmail.com', 'googlemail.com') then '.'
                    when domain in ('proton.me', 'protonmail.com', 'protonmail.ch', 'pm.me') then '._-'
                    else '' end as ignored
          from untagged
    )
    select coalesce(nullif(translate(local, ignored, ''), ''), local) || '@' || domain from provided
$$;

comment on function otp.canonical is 'The spelling of an address that limits count by, as far as SQL can tell: a domain outside ASCII stays as it is.';

-- For a domain outside ASCII the canonical spelling is looked up where the address was used.
create or replace function otp.spellings(email text)
returns setof text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if (position('@' in email) > 1) is not true then
        raise exception 'an address is needed' using errcode = 'invalid_parameter_value';
    end if;
    return query
    select otp.canonical(spellings.email)
    union
    select coalesce(c.mailbox, c.email)
      from otp.challenge c
     where lower(spellings.email collate "C") ~ '[^ -~]' and lower(c.email collate "C") = lower(spellings.email collate "C");
end
$$;

comment on function otp.spellings is 'The canonical spellings under which an address may be stored.';

-- The keys of a mailbox's limits, for every application and ticket: they begin with the mailbox (see otp.quota_key).
create or replace function otp.quotas_of(mailboxes text[])
returns setof otp.address_quota
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- it would take longer than the rest
as $$
    select q.*
      from unnest(mailboxes) as who (mailbox)
      join otp.address_quota q on q.mailbox = who.mailbox collate "C"
     union
    select q.*
      from unnest(mailboxes) as who (mailbox)
      join otp.address_quota q on q.mailbox > (who.mailbox || ' ') collate "C" and q.mailbox < (who.mailbox || '!') collate "C"
$$;

comment on function otp.quotas_of is 'The limits that mailboxes have with any application or ticket.';

-- No index by address: it would cost every request more than it saves support. The limits tell when codes went to an address,
-- and the ids of that moment are together: a few thousand rows are looked at, however many there are.
create or replace function otp.recent_of(mailboxes text[])
returns setof uuid
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- it would take longer than the rest
as $$
    select distinct c.id
      from otp.quotas_of(mailboxes) as q
     cross join unnest(q.sent) as moment
      join otp.challenge c on c.id >= otp.id_at(moment - interval '5 seconds') and c.id < otp.id_at(moment + interval '2 seconds')
     where coalesce(c.mailbox, c.email) = any (mailboxes)
$$;

comment on function otp.recent_of is 'The tokens of mailboxes, as far back as their limits remember: a day.';

create or replace function otp.tokens_of(email text)
returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    who constant text[] := array(select otp.spellings(tokens_of.email));
    ids constant uuid[] := array(select otp.recent_of(who));
begin
    return case when cardinality(ids) > 0 then ids
                else array(select c.id from otp.challenge c where coalesce(c.mailbox, c.email) = any (who)) end;
end
$$;

comment on function otp.tokens_of is
'The ids of an address''s challenges, in any spelling: select * from otp.challenges where id = any (otp.tokens_of(''a@b.example'')). Those of the last day are found in milliseconds, as far as limits are on; if there are none, the whole table is read.';

create or replace function otp.forget(email text)
returns table (challenges bigint, quotas bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    who   constant text[] := array(select otp.spellings(forget.email));
    ids   uuid[];
    mails uuid[];
    keys  text[];
begin
    ids := array(select c.id from otp.challenge c
                  where coalesce(c.mailbox, c.email) = any (who)
                     or lower(c.email collate "C") = lower(forget.email collate "C")
                  order by c.id
                    for update);
    mails := array(select mail_id from otp.challenge c cross join unnest(otp.mails_of(c)) as mail_id where c.id = any (ids));
    perform from otp.mail m where m.id = any (mails) order by m.id for update;
    keys := array(select q.mailbox from otp.address_quota q
                   where q.mailbox in (select mailbox from otp.quotas_of(who)) order by q.mailbox for update);
    delete from otp.mail m where m.id = any (mails);
    delete from otp.challenge c where c.id = any (ids);
    get diagnostics challenges = row_count;
    delete from otp.address_quota q where q.mailbox = any (keys);
    get diagnostics quotas = row_count;
    return next;
end
$$;

comment on function otp.forget is
'Erases an address, in all its spellings and for all applications, with its challenges, mails and limits; reads the whole table, so that nothing is left. Letters outside ASCII must be as they were given. Returns how many rows went.';

create or replace function otp.unlock(email text)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    who  constant text[] := array(select otp.spellings(unlock.email));
    keys constant text[] := array(select q.mailbox from otp.address_quota q
                                   where q.mailbox in (select mailbox from otp.quotas_of(who)) order by q.mailbox for update);
begin
    delete from otp.address_quota q where q.mailbox = any (keys);
    return found;
end
$$;

comment on function otp.unlock is 'Lifts the sending limits of an address with every application, so that it can be sent a code at once. Spent guesses stay spent. False: no limit was held.';

create or replace function otp.revoke(email text)
returns table (challenges bigint, mails bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    who constant text[] := array(select otp.spellings(revoke.email));
    ids uuid[];
begin
    ids := array(select c.id from otp.challenge c
                  where coalesce(c.mailbox, c.email) = any (who)
                    and c.expires_at > clock_timestamp() and c.used_at is null and c.revoked_at is null
                  order by c.id
                    for update);
    update otp.challenge c set revoked_at = clock_timestamp() where c.id = any (ids);
    get diagnostics challenges = row_count;
    mails := otp.withdraw(ids);
    return next;
end
$$;

comment on function otp.revoke is 'Ends every live token of an address, with every application: no guess counts any more, and a mail that waits is not sent. Returns how many tokens, and mails.';

create or replace function otp.end_live()
returns table (challenges bigint, mails bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    with live as materialized (
        select c.id from otp.challenge c
         where c.expires_at > clock_timestamp() and c.used_at is null and c.revoked_at is null and c.attempts < c.max_attempts
         order by c.id
           for update
    )
    update otp.challenge c set expires_at = clock_timestamp(), earlier = null from live where c.id = live.id;
    get diagnostics challenges = row_count;
    with unsent as materialized (
        select m.id from otp.mail m where m.state = 'queued' order by m.id for update
    )
    update otp.mail m set state = 'expired', sealed = null, lease = null from unsent where m.id = unsent.id;
    get diagnostics mails = row_count;
    return next;
end
$$;

comment on function otp.end_live is
'Ends every code that is live, and gives up the mails that wait: after a restore, which knows nothing of the guesses since the backup, and when a pepper has leaked. Returns how many.';
