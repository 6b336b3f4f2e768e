-- Roles, and who may do what in the database as a whole: all that takes more rights than otp_owner has. Runs each time.

do $$
declare
    role_name text;
    purpose   text;
begin
    for role_name, purpose in values
        ('otp_owner',    'otpd: owns schema otp; nobody logs in as it'),
        ('otp_generate', 'otpd: otp-generate; may call otp.generate and the functions of a resend'),
        ('otp_validate', 'otpd: otp-validate; may call otp.validate, otp.revoke_tokens and otp.delivery_status'),
        ('otp_worker',   'otpd: otp-worker; may call the functions of delivery and sweep'),
        ('otp_admin',    'otpd: support staff; reads the views and may call the functions of support')
    loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I %s', role_name, case role_name when 'otp_owner' then 'nologin' else 'login' end);
            execute format('comment on role %I is %L', role_name, purpose);
        end if;
    end loop;

    -- Without being a superuser, one acts as a role only as its member.
    if not pg_has_role(current_user, 'otp_owner',
                       case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end) then
        grant otp_owner to current_user;
    end if;
end
$$;

-- The database is otpd's own: the programs connect to it and call their functions. They, and whoever else may log in,
-- make nothing in it: no object that another session could take for PostgreSQL's own, no temporary table, no large object.
do $$
declare
    program  text;
    target   text;
    is_super constant boolean := (select rolsuper from pg_roles where rolname = current_user);
    left_over text[];
begin
    execute format('revoke connect, temporary on database %I from public', current_database());
    execute format('grant connect on database %I to otp_generate, otp_validate, otp_worker, otp_admin', current_database());
    foreach program in array array['otp_generate', 'otp_validate', 'otp_worker', 'otp_admin'] loop
        execute format('revoke create, temporary on database %I from %I', current_database(), program);
    end loop;

    -- Schema public and the functions of large objects are the superuser's, or, since PostgreSQL 15, the database owner's.
    if is_super then
        if to_regnamespace('public') is not null then
            revoke create on schema public from public, otp_generate, otp_validate, otp_worker, otp_admin;
        end if;
        for target in select p.oid::regprocedure from pg_proc p
                       where p.pronamespace = 'pg_catalog'::regnamespace
                         and (p.proname ~ '^lo_' or p.proname in ('loread', 'lowrite'))
                         and has_function_privilege('otp_generate', p.oid, 'execute') loop
            execute format('revoke execute on function %s from public', target);
        end loop;
    elsif pg_has_role(current_user, (select nspowner from pg_namespace where nspname = 'public'), 'usage') then
        revoke create on schema public from public, otp_generate, otp_validate, otp_worker, otp_admin;
    end if;

    left_over := array(select 'CREATE on schema public' from pg_namespace
                        where nspname = 'public' and has_schema_privilege('otp_generate', oid, 'create')
                       union all
                       select 'large objects' where has_function_privilege('otp_generate', 'lo_create(oid)', 'execute'));
    if cardinality(left_over) > 0 then
        raise warning 'the programs still may use: %. Run migrate once as a superuser to take that away',
            array_to_string(left_over, ', ');
    end if;
end
$$;

-- The programs ask for what they rely on when they connect. A person at a prompt does not, and must not hold rows that a
-- request waits for, nor an old snapshot.
do $$
declare
    setting text;
begin
    foreach setting in array array['search_path=pg_catalog, pg_temp', 'statement_timeout=60s', 'lock_timeout=2s',
                                   'idle_in_transaction_session_timeout=10s'] loop
        if not exists (select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
                        where d.datname = current_database() and s.setrole = 'otp_admin'::regrole
                          and setting = any (s.setconfig)) then
            execute format('alter role otp_admin in database %I set %s = %s', current_database(),
                           split_part(setting, '=', 1),
                           case setting when 'search_path=pg_catalog, pg_temp' then 'pg_catalog, pg_temp'
                                        else quote_literal(split_part(setting, '=', 2)) end);
        end if;
    end loop;
end
$$;

-- The schema, and everything in it, is otp_owner's. What is not, and could be a SECURITY DEFINER function with a
-- superuser's rights, came with a dump that was restored before the roles were there.
select 'create schema otp authorization otp_owner' where to_regnamespace('otp') is null \gexec
do $$
declare
    thing record;
begin
    if (select nspowner from pg_namespace where nspname = 'otp') <> 'otp_owner'::regrole then
        alter schema otp owner to otp_owner;
    end if;
    for thing in select o.type, o.identity
                   from pg_depend d, pg_identify_object(d.classid, d.objid, 0) o
                  where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'otp'::regnamespace and d.deptype = 'n'
                    and not exists (select from pg_shdepend s
                                     where s.dbid = (select oid from pg_database where datname = current_database())
                                       and s.classid = d.classid and s.objid = d.objid and s.objsubid = 0
                                       and s.deptype = 'o' and s.refobjid = 'otp_owner'::regrole)
    loop
        execute format('alter %s %s owner to otp_owner', thing.type, thing.identity);
        raise warning 'the % % was not otp_owner''s; it is now', thing.type, thing.identity;
    end loop;
end
$$;
