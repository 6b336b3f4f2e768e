-- The version of the functions, which programs ask for at connect.

create or replace function otp.schema_version()
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
return 1;

comment on function otp.schema_version is 'What programs ask at connect: they need at least the version that they were made for (src/db/schema_version.h). A higher one still serves them.';
