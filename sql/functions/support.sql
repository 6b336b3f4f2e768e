-- What support staff do from psql. All rows of an address go, so these wait for locks, but in the order in which all others
-- take them: challenges, mails, limits, each by its key.

-- Lower case is that of ASCII, whatever the database's language. For a domain outside ASCII the canonical spelling is looked
-- up where the address was used.
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
    select regexp_replace(lower(spellings.email collate "C"), '^([^+@]+)\+[^@]*@', '\1@')
    union
    select coalesce(c.mailbox, c.email)
      from otp.challenge c
     where lower(c.email collate "C") = lower(spellings.email collate "C");
end
$$;

comment on function otp.spellings is 'The canonical spellings under which an address may be stored.';

create or replace function otp.forget(email text)
returns table (challenges bigint, quotas bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    who  constant text[] := array(select otp.spellings(forget.email));
    ids  uuid[];
    keys text[];
begin
    ids := array(select c.id from otp.challenge c
                  where coalesce(c.mailbox, c.email) = any (who)
                     or lower(c.email collate "C") = lower(forget.email collate "C")
                  order by c.id
                    for update);
    perform from otp.mail m where m.id = any (ids) order by m.id for update;
    keys := array(select q.mailbox from otp.address_quota q where q.mailbox = any (who) order by q.mailbox for update);
    delete from otp.mail m where m.id = any (ids);
    delete from otp.challenge c where c.id = any (ids);
    get diagnostics challenges = row_count;
    delete from otp.address_quota q where q.mailbox = any (keys);
    get diagnostics quotas = row_count;
    return next;
end
$$;

comment on function otp.forget is
'Erases an address, in all its spellings, with its challenges, mails and limits. Letters outside ASCII must be as they were given. Returns how many rows went.';

create or replace function otp.unlock(email text)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    who  constant text[] := array(select otp.spellings(unlock.email));
    keys constant text[] := array(select q.mailbox from otp.address_quota q where q.mailbox = any (who) order by q.mailbox for update);
begin
    delete from otp.address_quota q where q.mailbox = any (keys);
    return found;
end
$$;

comment on function otp.unlock is 'Lifts the sending limits of an address, so that it can be sent a code at once. Spent guesses stay spent. False: no limit was held.';

create or replace function otp.end_live()
returns table (challenges bigint, mails bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    with live as materialized (
        select c.id from otp.challenge c
         where c.expires_at > clock_timestamp() and c.used_at is null and c.attempts < c.max_attempts
         order by c.id
           for update
    )
    update otp.challenge c set expires_at = clock_timestamp() from live where c.id = live.id;
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
