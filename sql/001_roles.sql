-- Roles and the schema: one owner, and one login role per program that can call its own functions and nothing else.

do $$
declare
    role_name text;
begin
    if not exists (select from pg_roles where rolname = 'otp_owner') then
        create role otp_owner nologin;
    end if;
    foreach role_name in array array['otp_generate', 'otp_validate', 'otp_worker', 'otp_admin'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I login', role_name);
        end if;
    end loop;
end
$$;

-- Without being a superuser, one gives away only to a role that one is a member of.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        grant otp_owner to current_user;
    end if;
end
$$;

comment on role otp_owner is 'otpd: owns schema otp; nobody logs in as it';
comment on role otp_generate is 'otpd: otp-generate; may call otp.generate';
comment on role otp_validate is 'otpd: otp-validate; may call otp.validate';
comment on role otp_worker is 'otpd: otp-worker; may call the functions of delivery and sweep';
comment on role otp_admin is 'otpd: support staff; reads the views and may call otp.forget and otp.unlock';

-- A request is answered within 3 s. A slow statement ends before its responder gives it up (1.9 s), so that its outcome is
-- known: rolled back. What was accepted is on disk.
alter role otp_generate set statement_timeout = '1500ms';
alter role otp_generate set lock_timeout = '500ms';
alter role otp_generate set idle_in_transaction_session_timeout = '5s';
alter role otp_generate set synchronous_commit = on;
alter role otp_generate set jit = off;
alter role otp_validate set statement_timeout = '1500ms';
alter role otp_validate set lock_timeout = '500ms';
alter role otp_validate set idle_in_transaction_session_timeout = '5s';
alter role otp_validate set synchronous_commit = on;
alter role otp_validate set jit = off;
alter role otp_worker set statement_timeout = '10s';
alter role otp_worker set lock_timeout = '2s';
alter role otp_worker set idle_in_transaction_session_timeout = '5s';
alter role otp_worker set synchronous_commit = on;
alter role otp_worker set jit = off;
-- Nobody at a prompt holds rows that a request waits for.
alter role otp_admin set statement_timeout = '60s';
alter role otp_admin set lock_timeout = '2s';
alter role otp_admin set idle_in_transaction_session_timeout = '10s';

grant usage on schema otp to otp_generate, otp_validate, otp_worker, otp_admin;

alter schema otp owner to otp_owner;
alter table otp.migration owner to otp_owner;
comment on schema otp is 'otpd: one-time passwords by email';
