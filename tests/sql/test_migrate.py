"""sql/migrate: what is applied once, what is made anew, what is refused, and what nobody can plant for it to run."""
import re
import shutil
import subprocess
import threading
import uuid

import psycopg
import pytest

from cluster import DUMPED, SQL, VERSIONS, Cluster
from stack import wait_for

PROGRAMS = ["otp_generate", "otp_validate", "otp_worker", "otp_admin"]
TABLE = "001_challenge_mail_quota.sql"
ALL = f"applied {TABLE}\napplied functions\n"
VERDICT = ("select verdict from otp.validate(array[gen_random_uuid()], array[null], array[null], array[null]::bytea[], array[6],"
           " array[null]::bytea[], 1::smallint, null, null)")


@pytest.fixture(scope="module", params=sorted(VERSIONS), ids=lambda version: f"pg{version}")
def cluster(request):
    """A server of each version that is here."""
    cluster = Cluster(request.param)
    yield cluster
    cluster.close()


@pytest.fixture
def empty(cluster):
    """With an empty database otp, and roles as another test left them."""
    cluster.create()
    return cluster


@pytest.fixture
def sql(tmp_path):
    """A copy of sql/ to edit."""
    return shutil.copytree(SQL, tmp_path / "sql")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def more(sql, text):
    """A file with more functions."""
    path = sql / "functions" / "more.sql"
    if not path.exists():
        edit(sql / "migrate", "functions/version.sql", "functions/version.sql functions/more.sql")
    path.write_text(text)


def call(cluster):
    """Each program's role calls a function of its own, and support reads a view."""
    assert cluster.query(VERDICT, user="otp_validate") == [("unknown_token",)]
    assert cluster.query("select * from otp.claim_mail(1)", user="otp_worker") == []
    assert cluster.query("select ord from otp.generate('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 1::smallint, '{}', 1::smallint, '{}', null, 6::smallint,"
                         " 600, 5, 60, 5, 10)",
                         user="otp_generate") == []
    assert cluster.query("select count(*) from otp.challenges", user="otp_admin") == [(0,)]


def definers(cluster):
    return cluster.query("select distinct pg_get_userbyid(proowner) from pg_proc where pronamespace = 'otp'::regnamespace"
                         " union select pg_get_userbyid(relowner) from pg_class where relnamespace = 'otp'::regnamespace"
                         " union select pg_get_userbyid(typowner) from pg_type where typnamespace = 'otp'::regnamespace"
                         " union select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'otp'")


# --- What is applied ---

def test_a_second_run_changes_nothing(empty):
    assert empty.migrate() == ALL
    call(empty)
    functions = empty.query("select oid from pg_proc where pronamespace = 'otp'::regnamespace order by 1")
    assert empty.migrate() == ""
    assert empty.query("select oid from pg_proc where pronamespace = 'otp'::regnamespace order by 1") == functions
    assert sorted(empty.query("select name from otp.migration")) == [(TABLE,), ("functions",)]


def test_the_programs_and_the_functions_name_one_version(empty):
    """What src/db/schema_version.h asks for is what sql/ has, and each program may ask."""
    empty.migrate()
    needed = re.search(r"^#define DB_SCHEMA_VERSION (\d+)$", (SQL.parent / "src" / "db" / "schema_version.h").read_text(), re.M)[1]
    for role in PROGRAMS:
        assert empty.query("select otp.schema_version()", user=role) == [(int(needed),)]


def test_every_file_is_applied_and_installed():
    """No function's file is forgotten by migrate, and no file of sql/ by the installation."""
    migrate, makefile = (SQL / "migrate").read_text(), (SQL.parent / "Makefile.am").read_text()
    files = [path for path in SQL.rglob("*.sql")]
    assert len(files) >= 9
    for path in files:
        name = str(path.relative_to(SQL))
        assert f"sql/{name}" in makefile.split()
        assert name.startswith("tables/") or name == "roles.sql" or name in migrate.split('functions="')[1].split('"')[0].split()


def test_runs_side_by_side(empty):
    """One applies, the others wait and find it done."""
    runs = [subprocess.Popen(["sh", SQL / "migrate", empty.conninfo()], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for _ in range(4)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, outputs
    assert sorted(outputs) == ["", "", "", ALL]


def test_a_folder_with_a_space_and_a_quote(empty, tmp_path):
    folder = shutil.copytree(SQL, tmp_path / "it's a folder" / "sql")
    assert empty.migrate(folder) == ALL


def test_a_changed_table_file_is_refused(empty, sql):
    """By name, with what to do; what came after it in the files is not applied either."""
    empty.migrate(sql)
    edit(sql / "tables" / TABLE, "create table otp.mail (", "-- A word.\ncreate table otp.mail (")
    (sql / "tables" / "002_more.sql").write_text("create table otp.more (id int);\n")
    output = empty.migrate(sql, status=1)
    assert f"sql/tables/{TABLE} is not what was applied at" in output and "put its text back" in output and "next number" in output
    assert empty.query("select to_regclass('otp.more')") == [(None,)]


def test_a_new_table_file_is_applied_once(empty, sql):
    empty.migrate(sql)
    (sql / "tables" / "002_more.sql").write_text("-- Later.\ncreate table otp.more (id int);\n")
    assert empty.migrate(sql) == "applied 002_more.sql\napplied functions\n"  # its owner and grants are of what is watched
    assert empty.migrate(sql) == ""
    assert empty.query("select tableowner from pg_tables where tablename = 'more'") == [("otp_owner",)]


def test_older_files_are_refused(empty, sql):
    (sql / "tables" / "002_more.sql").write_text("create table otp.more (id int);\n")
    empty.migrate(sql)
    assert "the database has 002_more.sql" in empty.migrate(status=1)


def test_functions_follow_their_files(empty, sql):
    """An edited function is made anew; one that the files do not have any more, or have with other parameters, is gone."""
    empty.migrate(sql)
    more(sql, "create function otp.more(a integer) returns integer language sql return 1;\n"
         "create view otp.another as select 1 as one;\ncreate view otp.beyond as select * from otp.another;\n")
    assert empty.migrate(sql) == "applied functions\n"
    assert empty.query("select otp.more(1)") == [(1,)]
    more(sql, "create function otp.more(a text) returns text language sql return 'two';\n")
    edit(sql / "functions" / "requests.sql", "'unknown_token'", "'other_word'")
    assert empty.migrate(sql) == "applied functions\n"
    assert empty.query("select oid::regprocedure::text from pg_proc where proname = 'more'") == [("otp.more(text)",)]
    assert empty.query("select to_regclass('otp.another'), to_regclass('otp.beyond')") == [(None, None)]
    assert empty.query(VERDICT, user="otp_validate") == [("other_word",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        empty.query("select otp.more('x')", user="otp_validate")
    shutil.copy(SQL / "migrate", sql)  # a file that nobody names any more stays in an installed folder
    empty.migrate(sql)
    assert empty.query("select count(*) from pg_proc where proname = 'more'") == [(0,)]


def test_all_or_nothing(empty, sql):
    """A statement that fails leaves the database as it was, the tables of the same run included."""
    empty.migrate(sql)
    before = empty.query("select oid from pg_proc where pronamespace = 'otp'::regnamespace order by 1")
    (sql / "tables" / "002_more.sql").write_text("create table otp.more (id int);\n")
    edit(sql / "functions" / "sweep.sql", "function otp.sweep_quota(", "functoin otp.sweep_quota(")
    output = empty.migrate(sql, status=1)
    assert "syntax error" in output and "applied" not in output
    assert empty.query("select to_regclass('otp.more')") == [(None,)]
    assert empty.query("select oid from pg_proc where pronamespace = 'otp'::regnamespace order by 1") == before
    call(empty)


def test_functions_are_made_anew_under_traffic(empty, sql):
    """Programs with prepared calls notice nothing of an upgrade of the functions."""
    empty.migrate(sql)
    problems, calls, done = [], [], threading.Event()

    def run(role, statement):
        try:
            with empty.connect(role) as connection:
                connection.prepare_threshold = 0
                while not done.is_set():
                    connection.execute(statement).fetchall()
                    calls.append(role)
        except Exception as problem:
            problems.append(problem)
    threads = [threading.Thread(target=run, args=each) for each in [
        ("otp_validate", VERDICT), ("otp_validate", VERDICT), ("otp_worker", "select * from otp.claim_mail(10)"),
        ("otp_generate", "select * from otp.generate(array[gen_random_uuid()], array['a@example.com'], '{null}', '{null}', '{null}', '{null}', '{null}',"
                         " array['x'::bytea], 1::smallint, array['x'::bytea], 1::smallint, '{null}', null, 6::smallint, 600, 5, 60, 5, 10)")]]
    for thread in threads:
        thread.start()
    for turn in range(12):
        before = len(calls)
        wait_for(lambda before=before: problems or len(calls) > before + 50, 20)
        more(sql, f"-- {turn}\n")
        assert empty.migrate(sql) == "applied functions\n"
    done.set()
    for thread in threads:
        thread.join()
    assert not problems, problems
    assert set(calls) == {"otp_validate", "otp_worker", "otp_generate"}


def test_a_reader_does_not_make_it_hold_up_requests(empty, sql):
    """A migration that finds a table in use gives up within seconds, since every request would wait behind it."""
    empty.migrate(sql)
    (sql / "tables" / "002_more.sql").write_text("alter table otp.challenge add column more integer;\n")
    with empty.connect() as reader:
        reader.execute("begin")
        reader.execute("select count(*) from otp.challenges")
        assert "lock timeout" in empty.migrate(sql, status=1)
        call(empty)
    assert empty.migrate(sql) == "applied 002_more.sql\n"


# --- Drift ---

@pytest.mark.parametrize("change", [
    "alter function otp.validate owner to postgres", "alter table otp.challenge owner to postgres", "alter schema otp owner to postgres",
    "alter type otp.mail_state owner to postgres", "alter view otp.stats owner to postgres",
    "grant execute on function otp.validate to public", "revoke usage on schema otp from otp_validate",
    "grant select on otp.challenge to otp_admin", "grant insert (id) on otp.challenge to otp_admin", "drop function otp.validate",
    "create function otp.stray() returns integer language sql return 1", "create view otp.stray as select 1 as one",
    "revoke execute on function otp.generate from otp_generate"])
def test_what_is_not_as_it_should_be_is_repaired(empty, change):
    empty.migrate()
    before = acl(empty)
    empty.query(change)
    empty.migrate()
    assert acl(empty) == before
    assert definers(empty) == [("otp_owner",)]
    assert empty.query("select count(*) from pg_proc where proname = 'stray'") == [(0,)]
    assert empty.query("select to_regclass('otp.stray')") == [(None,)]
    call(empty)
    assert empty.migrate() == ""


def acl(cluster):
    return sorted(cluster.query(
        "select p.oid::regprocedure::text, a.grantee::regrole::text, a.privilege_type from pg_proc p, aclexplode(proacl) a"
        " where pronamespace = 'otp'::regnamespace union all"
        " select c.relname::text, a.grantee::regrole::text, a.privilege_type from pg_class c, aclexplode(relacl) a"
        " where relnamespace = 'otp'::regnamespace and a.grantee <> relowner union all"
        " select c.relname || '.' || t.attname, a.grantee::regrole::text, a.privilege_type from pg_class c join pg_attribute t"
        " on t.attrelid = c.oid, aclexplode(t.attacl) a where relnamespace = 'otp'::regnamespace union all"
        " select 'otp', a.grantee::regrole::text, a.privilege_type from pg_namespace, aclexplode(nspacl) a where nspname = 'otp'"))


# --- Restores ---

@pytest.mark.parametrize("options", [[], ["--no-acl"], ["--no-owner"], ["--no-owner", "--no-acl"]], ids=lambda o: " ".join(o) or "whole")
def test_a_dump_restored_before_the_roles_are_there(empty, options):
    """Into a cluster that knows no role of ours: migrate gives everything back to otp_owner, and each program its rights."""
    if empty.version > DUMPED:
        pytest.skip("pg_dump here is older")
    empty.migrate()
    before = acl(empty)
    dump = subprocess.run(["pg_dump", "--format=custom", empty.conninfo()], check=True, stdout=subprocess.PIPE).stdout
    elsewhere = Cluster(empty.version)
    try:
        elsewhere.create()
        restored = subprocess.run(["pg_restore", *options, "-d", elsewhere.conninfo()], input=dump, check=False, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
        if not options:
            assert restored.returncode != 0  # --exit-on-error of docs/OPERATIONS.md ends here
        assert elsewhere.query("select count(*) from pg_proc where pronamespace = 'otp'::regnamespace and prosecdef"
                               " and pg_get_userbyid(proowner) = 'postgres'") != [(0,)]
        elsewhere.migrate()
        assert definers(elsewhere) == [("otp_owner",)]
        assert acl(elsewhere) == before
        call(elsewhere)
        assert elsewhere.migrate() == ""
        assert elsewhere.query("select setconfig is not null from pg_db_role_setting s join pg_database d on d.oid = setdatabase"
                               " where datname = 'otp' and setrole = 'otp_admin'::regrole") == [(True,)]
    finally:
        elsewhere.close()


def test_end_live(empty):
    """What was live is not valid any more and no mail of it goes; what was used stays used."""
    empty.migrate()
    live, used, old = (uuid.uuid4() for _ in range(3))
    empty.query("insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at, used_at) select id, 'a@example.com',"
                " 'x', 1, 5, now() - interval '1 h', now() + life, used from (values (%s::uuid, interval '10 min', null::timestamptz),"
                " (%s, '10 min', now()), (%s, '-1 min', null)) v (id, life, used)", live, used, old)
    empty.query("insert into otp.mail (id, sealed, mail_key, next_attempt_at, give_up_at) values (%s, 'x', 1, now(), now() + interval '9 min')", live)
    assert empty.query("select challenges, mails from otp.end_live()", user="otp_admin") == [(1, 1)]
    verdicts = empty.query("select verdict from otp.validate(%s, '{null,null,null}', '{null,null,null}', '{null,null,null}', '{6,6,6}',"
                           " array['x', 'x', 'x']::bytea[], 1::smallint, null, null) order by ord",
                           [live, used, old], user="otp_validate")
    assert verdicts == [("expired",), ("used",), ("expired",)]
    assert empty.query("select * from otp.claim_mail(10)", user="otp_worker") == []
    assert empty.query("select state::text, sealed from otp.mail") == [("expired", None)]


# --- Who runs it, and what others leave for it ---

@pytest.fixture
def owner(cluster):
    """A role that may make roles, owns the database, and is no superuser; in a cluster without roles of ours."""
    cluster.query("drop database if exists otp", dbname="postgres")
    for role in [*PROGRAMS, "otp_owner", "landlord"]:
        cluster.query(f"drop role if exists {role}", dbname="postgres")
    cluster.query("create role landlord login createrole createdb", dbname="postgres")
    cluster.create("landlord")
    yield cluster
    cluster.query("drop database otp", dbname="postgres")
    for role in [*PROGRAMS, "otp_owner", "landlord"]:
        cluster.query(f"drop role if exists {role}", dbname="postgres")


def test_as_the_databases_owner(owner):
    """Roles, schema, grants; what only a superuser can take away is named."""
    output = owner.migrate(user="landlord")
    assert ALL in output
    assert "the programs still may use" in output and "large objects" in output
    assert ("CREATE on schema public" in output) == (owner.version < 15)
    assert definers(owner) == [("otp_owner",)]
    call(owner)
    assert "applied" not in owner.migrate(user="landlord")
    assert owner.migrate() == ""
    assert owner.migrate(user="landlord") == ""
    assert not owner.query("select has_schema_privilege('otp_generate', 'public', 'create')")[0][0]


# What somebody could leave in public: functions and operators that fit better than PostgreSQL's own, relations, types.
TRAPS = """
create function public.trap() returns boolean language plpgsql as $$
begin
    insert into public.trapped values (current_user);
    execute 'alter role otp_generate superuser';
    return true;
exception when insufficient_privilege then
    return true;
end $$;
"""


def traps():
    """Traps of every name that sql/ calls, with each of some signatures, and of every operator that it uses."""
    text = "".join(path.read_text() for path in [SQL / "migrate", *SQL.rglob("*.sql")])
    names = {name for name in re.findall(r"(?<![.\w])([a-z_]+)\(", text)} | {"count", "hashtext", "pg_advisory_xact_lock"}
    types = ["text", "name", "integer", "bigint", "oid", "timestamptz", "uuid", "boolean", "regclass", "regnamespace", "smallint", "interval",
             "text[]", "uuid[]", "anyelement"]
    found = []
    for name in sorted(names):
        for arguments in ["", *types, "text, text", "text, text, boolean", "name, text", "oid, text", "name, oid, text", "text, integer",
                          "oid, oid, integer", "text, name", "uuid[], uuid", "timestamptz, timestamptz"]:
            result = "anyelement" if "anyelement" in arguments else "boolean"
            body = "select $1 where public.trap()" if "anyelement" in arguments else "select public.trap()"
            found.append(f'create function public."{name}"({arguments}) returns {result} language sql as \'{body}\'')
    for operator in ["=", "<>", "||", "<", "<=", ">", ">=", "+", "-", "*", "/", "~", "!~"]:
        for pair in [("name", "text"), ("text", "name"), ("oid", "integer"), ("integer", "bigint"), ("oid", "regnamespace"), ("name", "unknown"),
                     ("smallint", "integer"), ("numeric", "integer"), ("oid", "regrole"), ("oid", "regclass"), ("text", "text"), ("char", "text"),
                     ('"char"', "text"), ("timestamptz", "interval"), ("uuid", "uuid"), ("integer", "integer"), ("regprocedure", "text")]:
            found.append(f"create function public.trap{len(found)}({', '.join(pair)}) returns boolean language sql as 'select public.trap()'")
            found.append(f"create operator public.{operator} (leftarg = {pair[0]}, rightarg = {pair[1]}, function = public.trap{len(found) - 1})")
    for relation in ["pg_roles", "pg_class", "pg_proc", "pg_database", "pg_namespace", "pg_depend", "pg_shdepend", "challenge", "mail", "migration"]:
        found.append(f"create view public.{relation} as select public.trap() as rolname")
    found += [f'create domain public."{name}" as text check (public.trap())' for name in ("text", "uuid", "timestamptz", "regclass", "regnamespace")]
    return found


def plant(cluster, dbname="otp"):
    """A program's role leaves them, where schema public is everybody's, as PostgreSQL 14 has it."""
    cluster.query("grant create, usage on schema public to public", dbname=dbname)
    cluster.query("create table if not exists public.trapped (who text)", dbname=dbname)
    cluster.query("grant insert on public.trapped to public", dbname=dbname)
    planted = 0
    with cluster.connect("otp_generate", dbname) as connection:
        connection.execute(TRAPS)
        for statement in traps():
            try:
                connection.execute(statement)
                planted += 1
            except (psycopg.errors.SyntaxError, psycopg.errors.DuplicateFunction, psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction,
                    psycopg.errors.InvalidFunctionDefinition, psycopg.errors.DuplicateObject, psycopg.errors.DatatypeMismatch):
                pass  # no such type or name is left to plant
    assert planted > 1000


@pytest.mark.parametrize("user", ["postgres", "landlord"])
def test_b2_nothing_that_was_planted_is_run(owner, sql, user):
    """B2: by migrate, at an upgrade of everything, nor by a function that another role calls."""
    owner.migrate(user=user)
    plant(owner)
    owner.query("alter database otp set search_path = public, pg_catalog")  # and even then
    (sql / "tables" / "002_more.sql").write_text("create table otp.more (id int);\n")
    more(sql, "create function otp.more() returns integer language sql return 1;\n")
    assert "applied functions" in owner.migrate(sql, user=user)
    owner.migrate(sql)
    with owner.connect("otp_worker") as connection:
        connection.execute("set search_path = pg_catalog, pg_temp")
        assert connection.execute("select * from otp.claim_mail(1)").fetchall() == []
        assert connection.execute("select deleted from otp.sweep(null, 0, 10)").fetchall() == [(0,)]
        assert connection.execute("select deleted from otp.sweep_quota(0, 10)").fetchall() == [(0,)]
    assert owner.query("select who from public.trapped", dbname="otp") == []
    assert owner.query("select rolsuper from pg_roles where rolname = 'otp_generate'", dbname="postgres") == [(False,)]


def test_b2_the_programs_make_nothing(empty):
    """B2: no temporary table, no large object, no object in public or in a schema of their own, whatever the server's version;
    and nobody else connects."""
    empty.query("grant create on schema public to public")
    empty.migrate()
    empty.query("drop role if exists stranger")
    empty.query("create role stranger login")
    for role in PROGRAMS:
        with empty.connect(role) as connection:
            for statement in ["create temporary table t (a int)", "create table public.t (a int)", "create schema mine",
                              "create function public.f() returns int language sql return 1", "select lo_create(0)", "select lo_creat(-1)",
                              "select lo_from_bytea(0, 'x')", "select lo_unlink(1)", "select lo_open(1, 131072)", "select lowrite(0, 'x')"]:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    with pytest.raises(psycopg.OperationalError, match="CONNECT privilege"):
        empty.connect("stranger")


def test_no_setting_of_a_programs_role(empty):
    """Programs ask for their settings themselves: none hangs on a role, where a restore would lose it."""
    empty.migrate()
    assert empty.query("select setrole::regrole::text from pg_db_role_setting where setrole <> 0 and setrole <> 'otp_admin'::regrole") == []
    with empty.connect("otp_admin") as connection:
        assert connection.execute("select current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout'),"
                                  " current_setting('search_path')").fetchone() == ("10s", "2s", "pg_catalog, pg_temp")
