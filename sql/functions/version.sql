-- The version of the functions: src/db/schema_version.h has the one that the programs need.

create function otp.schema_version()
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
return 1;

comment on function otp.schema_version is 'A program that needs a higher one refuses to work: run migrate. A higher one still serves older programs.';
