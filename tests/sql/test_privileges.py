"""B2: who may do what in the database, from the catalog and by trying."""
import psycopg
import pytest

ROLES = ["otp_generate", "otp_validate", "otp_worker", "otp_admin"]

FUNCTIONS = {
    "otp_generate": {"otp.generate", "otp.resend_terms", "otp.resend", "otp.outbox_depth", "otp.schema_version"},
    "otp_validate": {"otp.validate", "otp.revoke_tokens", "otp.delivery_status", "otp.schema_version"},
    "otp_worker": {"otp.schema_version", "otp.claim_mail", "otp.settle_mail", "otp.expire_mail", "otp.sweep", "otp.sweep_quota"},
    "otp_admin": {"otp.tokens_of", "otp.forget", "otp.unlock", "otp.revoke", "otp.end_live", "otp.id_at", "otp.reference",
                  "otp.schema_version"},
}
VIEWS = {"otp_generate": set(), "otp_validate": set(), "otp_worker": set(),
         "otp_admin": {"otp.challenges", "otp.outbox", "otp.stats", "otp.domains"}}


@pytest.mark.parametrize("role", ROLES)
def test_b2_functions_of_a_role(database, role):
    """B2: EXECUTE on its own functions and on no other function of the schema."""
    rows = database.query("select distinct 'otp.' || proname from pg_proc where pronamespace = 'otp'::regnamespace"
                          " and has_function_privilege(%s, oid, 'execute')", role)
    assert {row[0] for row in rows} == FUNCTIONS[role]


@pytest.mark.parametrize("role", ROLES)
def test_b2_relations_of_a_role(database, role):
    """B2: no privilege at all on any table, column or sequence; views for support only, to read only."""
    relations = database.query("select 'otp.' || relname, oid::regclass::text, relkind from pg_class"
                               " where relnamespace = 'otp'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f', 'S')")
    assert len(relations) >= 7
    readable = set()
    for name, _, kind in relations:
        if kind == "S":
            assert not database.query("select has_sequence_privilege(%s, %s, 'usage, select, update')", role, name)[0][0], name
            continue
        for privilege in ("insert", "update", "delete", "truncate", "references", "trigger"):
            assert not database.query("select has_table_privilege(%s, %s, %s)", role, name, privilege)[0][0], (name, privilege)
        if database.query("select has_table_privilege(%s, %s, 'select') or has_any_column_privilege(%s, %s, 'select')",
                          role, name, role, name)[0][0]:
            readable.add(name)
    assert readable == VIEWS[role]


@pytest.mark.parametrize("role", ["public", *ROLES])
def test_b2_the_database_itself(database, role):
    """B2: the programs connect and make nothing; nobody else even connects."""
    for privilege, expected in [("connect", role != "public"), ("temporary", False), ("create", False)]:
        assert database.query("select has_database_privilege(%s, current_database(), %s)", role, privilege) == [(expected,)], privilege
    assert database.query("select has_schema_privilege(%s, 'public', 'create')", role) == [(False,)]
    assert database.query("select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname ~ '^lo_|^loread$|^lowrite$'"
                          " and has_function_privilege(%s, oid, 'execute')", role) == []


@pytest.mark.parametrize("role", ROLES)
def test_b2_a_role_is_nothing_else(database, role):
    """B2: no superuser, no createrole, no membership, no right to create anything in the schema."""
    flags = database.query("select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles where rolname = %s", role)
    assert flags == [(False,) * 5]
    assert database.query("select count(*) from pg_auth_members where member = %s::regrole", role) == [(0,)]
    assert not database.query("select has_schema_privilege(%s, 'otp', 'create')", role)[0][0]


def test_b2_nobody_else_has_anything(database):
    """B2: PUBLIC has no privilege on any function, table or the schema."""
    rows = database.query("select p.oid::regprocedure::text from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
                          " where p.pronamespace = 'otp'::regnamespace and a.grantee = 0")
    assert rows == []
    rows = database.query("select c.relname from pg_class c, aclexplode(c.relacl) a where c.relnamespace = 'otp'::regnamespace and a.grantee = 0")
    assert rows == []
    rows = database.query("select a.privilege_type from pg_namespace n, aclexplode(n.nspacl) a where n.nspname = 'otp' and a.grantee = 0")
    assert rows == []


def test_b2_owner_cannot_log_in(database):
    assert database.query("select rolcanlogin, rolsuper from pg_roles where rolname = 'otp_owner'") == [(False, False)]
    owners = database.query("select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'otp'::regnamespace"
                            " union select pg_get_userbyid(proowner) from pg_proc where pronamespace = 'otp'::regnamespace")
    assert owners == [("otp_owner",)]


def test_b2_definers_have_a_fixed_search_path(database):
    """A function without a search_path that ends in pg_temp can be made to run somebody's code. The rules that have none are put
    into the statements of those that have one, and nobody else may call them."""
    rows = database.query("select oid::regproc::text, proconfig, prosecdef, prolang = (select oid from pg_language where lanname = 'sql')"
                          " from pg_proc where pronamespace = 'otp'::regnamespace")
    callable = set().union(*FUNCTIONS.values())
    assert len(rows) >= 12
    for name, config, is_definer, is_sql in rows:
        if is_sql and not is_definer and name not in callable and config is None:
            continue
        assert "search_path=pg_catalog, pg_temp" in (config or []), name


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", ["challenge", "mail", "address_quota", "migration"])
def test_b2_by_trying(database, role, table):
    """B2: the refusal itself, not only what the catalog says."""
    with database.postgres.connect(role) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select * from otp.{table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"delete from otp.{table}")


def test_b2_support_can_read_its_views(database):
    database.plant(email="jane@example.com")
    with database.postgres.connect("otp_admin") as connection:
        assert connection.execute("select state, attempts from otp.challenges where email = 'jane@example.com'").fetchone() == ("live", 0)
        assert connection.execute("select count(*) from otp.outbox").fetchone() == (0,)
        assert connection.execute("select asked_last_hour from otp.stats").fetchone() == (1,)


def test_views_hold_no_secret(database):
    """B1: what support sees holds no MAC and no sealed code."""
    columns = database.query("select table_name, column_name from information_schema.columns"
                             " where table_schema = 'otp' and table_name in ('challenges', 'outbox', 'stats', 'domains')")
    assert len(columns) > 15
    assert not [c for c in columns if c[1] in ("code_mac", "sealed", "mac_key", "lease")]
    types = database.query("select count(*) from information_schema.columns where table_schema = 'otp'"
                           " and table_name in ('challenges', 'outbox', 'stats', 'domains') and data_type = 'bytea'")
    assert types == [(0,)]


def test_everything_is_explained(database):
    """Every table, view, column of them and function carries a comment, so that psql's \\d+ and \\df+ explain them."""
    missing = database.query(
        "select c.relname || coalesce('.' || a.attname, '') from pg_class c"
        " left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind = 'r'"
        " where c.relnamespace = 'otp'::regnamespace and c.relkind in ('r', 'v')"
        " and (obj_description(c.oid, 'pg_class') is null or (a.attnum is not null and col_description(c.oid, a.attnum) is null))"
        " union all select oid::regproc::text from pg_proc where pronamespace = 'otp'::regnamespace"
        " and obj_description(oid, 'pg_proc') is null")
    assert missing == []


def test_migrate_into_a_second_database(database):
    """Roles exist in the cluster already; the second database gets the schema all the same."""
    database.postgres.create("otp_second")
    try:
        with database.postgres.connect("otp_validate", "otp_second") as connection:
            assert connection.execute("select verdict from otp.validate(array[gen_random_uuid()], array[null], array[null],"
                                      " array[null]::bytea[], array[6], array[null]::bytea[], 1::smallint, null, null)").fetchall() == [("unknown_token",)]
    finally:
        database.query('drop database otp_second')
