-- Who may call and read what: each program its own functions, support staff the views and theirs, nobody else anything.

revoke all on all functions in schema otp from public;
revoke all on all tables in schema otp from public, otp_generate, otp_validate, otp_worker, otp_admin;
revoke all on schema otp from public, otp_generate, otp_validate, otp_worker, otp_admin;

grant usage on schema otp to otp_generate, otp_validate, otp_worker, otp_admin;
grant execute on function otp.schema_version to otp_generate, otp_validate, otp_worker, otp_admin;

grant execute on function otp.generate to otp_generate;
grant execute on function otp.validate to otp_validate;
grant execute on function otp.claim_mail, otp.settle_mail, otp.sweep, otp.sweep_quota to otp_worker;

grant select on otp.challenges, otp.outbox, otp.stats to otp_admin;
grant execute on function otp.forget, otp.unlock, otp.end_live to otp_admin;
-- A view's functions are called as its reader.
grant execute on function otp.id_at to otp_admin;
