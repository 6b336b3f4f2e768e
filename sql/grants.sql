-- Who may call and read what: each program its own functions, support staff the views and theirs, nobody else anything.

do $$
declare
    grantee text;
begin
    for grantee in
        select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
          from (select coalesce(proacl, acldefault('f', proowner)), proowner from pg_proc where pronamespace = 'otp'::regnamespace
                union all
                select relacl, relowner from pg_class where relnamespace = 'otp'::regnamespace
                union all
                select t.attacl, c.relowner from pg_class c join pg_attribute t on t.attrelid = c.oid where c.relnamespace = 'otp'::regnamespace
                union all
                select nspacl, nspowner from pg_namespace where nspname = 'otp') o (acl, owner), aclexplode(o.acl) a
         where a.grantee <> o.owner
    loop
        execute format('revoke all on all routines in schema otp from %s', grantee);
        execute format('revoke all on all tables in schema otp from %s', grantee);
        execute format('revoke all on schema otp from %s', grantee);
    end loop;
end
$$;

grant usage on schema otp to otp_generate, otp_validate, otp_worker, otp_admin;
grant execute on function otp.schema_version to otp_generate, otp_validate, otp_worker, otp_admin;

grant execute on function otp.generate, otp.resend_terms, otp.resend, otp.outbox_depth to otp_generate;
grant execute on function otp.validate, otp.revoke_tokens, otp.delivery_status to otp_validate;
grant execute on function otp.claim_mail, otp.settle_mail, otp.expire_mail, otp.sweep, otp.sweep_quota to otp_worker;

grant select on otp.challenges, otp.outbox, otp.stats, otp.domains to otp_admin;
grant execute on function otp.tokens_of, otp.forget, otp.unlock, otp.revoke, otp.end_live to otp_admin;
-- A view's functions are called as its reader.
grant execute on function otp.id_at, otp.reference to otp_admin;
