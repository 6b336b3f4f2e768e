/* test_db_target.c: what is said of a malformed DATABASE_URL, which never shows it (A25), and in which order servers
   are tried. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/complaint.h"
#include "db/db_target.h"

static char said[4096];

static enum result check(const char *conninfo)
{
	int saved = dup(STDERR_FILENO);
	int file = memfd_create("said", 0);
	enum result result;
	ssize_t count;

	(void)dup2(file, STDERR_FILENO);
	complaint_start("otp-test");
	result = db_target_check(conninfo);
	(void)dup2(saved, STDERR_FILENO);
	(void)close(saved);
	count = pread(file, said, sizeof(said) - 1, 0);
	said[count < 0 ? 0 : count] = '\0';
	(void)close(file);
	return result;
}

static void a25_no_malformed_url_is_quoted(void **state)
{
	static const struct {
		const char *conninfo, *fix;
	} cases[] = {
	    {"\"postgres://u:SECRET@h/otp\"", "quotes"},
	    {"'postgresql://u:SECRET@h/otp'", "quotes"},
	    {"mysql://u:SECRET@h/otp", "must begin with postgresql://"},
	    {"postgres:/u:SECRET@h/otp", "key=value"},
	    {"jdbc:postgresql://u:SECRET@h/otp?x=y", "must begin with postgresql://"},
	    {" postgresql://u:SECRET@h/otp", "must begin with postgresql://"},
	    {"postgresql://u:SECRET@[::1/otp", "percent-encode"},
	    {"postgresql://u:%SECRET@h/otp", "percent-encode"},
	    {"postgresql://u:SECRET%zz@h/otp", "percent-encode"},
	    {"postgresql://u:SECRET@rest@h/otp", "more than one @"},
	    {"postgresql://u:a@SECRET@h/otp", "more than one @"},
	    {"postgresql://u:a/SECRET@h/otp", "percent-encode"},
	    {"postgresql://u:SECRET/x@h/otp", "percent-encode"},
	    {"postgresql://u:SECRET@h/otp?nonsense=SECRET", "percent-encode"},
	    {"host=h user=u password=SECRET dbname", "key=value"},
	    {"host=h user=u password=a SECRET", "key=value"},
	    {"host=h user=u password=SECRET nonsense=1", "key=value"},
	    {"host=h user=u password='SECRET", "key=value"},
	    {"host=h port=SECRET", "port"},
	    {"host=SECRET@h", "host"},
	    {"SECRET", "key=value"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (check(cases[i].conninfo) != RESULT_INVALID)
			fail_msg("accepted: %s", cases[i].conninfo);
		if (strstr(said, "SECRET") != NULL || strstr(said, "ECRET") != NULL)
			fail_msg("quoted: %s", said);
		if (strstr(said, "otp-test: DATABASE_URL: ") != said || strstr(said, cases[i].fix) == NULL)
			fail_msg("%s: %s", cases[i].conninfo, said);
	}
}

static void what_libpq_takes_is_taken(void **state)
{
	static const char *const good[] = {
	    "",
	    "dbname=otp",
	    "host=/run/postgresql dbname=otp user=otp_generate",
	    "host=@abstract dbname=otp",
	    "host=db1,db2 port=5432,5433 dbname=otp",
	    "host=db1.example.com hostaddr=192.0.2.1 password='two words'",
	    "host=::1 dbname=otp",
	    "host=fe80::1%eth0 dbname=otp",
	    "postgresql://",
	    "postgres://u:p%40ss%2Fword@db1.example.com:5432,db2/otp?target_session_attrs=any&connect_timeout=3",
	    "postgresql://u@[::1]:5433/otp",
	    "postgresql://%2Frun%2Fpostgresql/otp",
	    "postgresql://u:a?b#c@h/otp",
	    "postgresql:///otp?host=/run/postgresql&user=a@b",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (check(good[i]) != RESULT_OK)
			fail_msg("refused: %s: %s", good[i], said);
}

/* Connects (to nothing that answers) and compares the server's name. */
static void assert_next(struct db_target *target, const char *name)
{
	struct pg_conn *connection = db_target_connect(target);

	assert_non_null(connection);
	PQfinish(connection);
	assert_string_equal(db_target_name(target), name);
}

static void servers_are_tried_in_order_and_the_one_that_worked_first(void **state)
{
	struct db_target *target = db_target_new("host=127.0.0.1,127.0.0.2,127.0.0.3 port=1,2,3", "otp-test", "");

	(void)state;
	assert_non_null(target);
	assert_next(target, "127.0.0.1 (127.0.0.1) 1");
	assert_int_equal(db_target_timeout_ms(target), 2000);
	assert_true(db_target_advance(target));
	assert_next(target, "127.0.0.2 (127.0.0.2) 2");
	db_target_keep(target);
	assert_next(target, "127.0.0.2 (127.0.0.2) 2");
	assert_true(db_target_advance(target));
	assert_next(target, "127.0.0.3 (127.0.0.3) 3");
	assert_true(db_target_advance(target));
	assert_next(target, "127.0.0.1 (127.0.0.1) 1");
	assert_false(db_target_advance(target)); /* all were tried */
	assert_next(target, "127.0.0.2 (127.0.0.2) 2");
	db_target_free(target);
}

static void one_server_has_more_time(void **state)
{
	struct db_target *target = db_target_new("host=127.0.0.1 port=1", "otp-test", "");

	(void)state;
	assert_next(target, "127.0.0.1 (127.0.0.1) 1");
	assert_int_equal(db_target_timeout_ms(target), 5000);
	assert_false(db_target_advance(target));
	assert_next(target, "127.0.0.1 (127.0.0.1) 1");
	db_target_free(target);
	target = db_target_new("host=127.0.0.1 port=1 connect_timeout=1", "otp-test", "");
	assert_next(target, "127.0.0.1 (127.0.0.1) 1");
	assert_int_equal(db_target_timeout_ms(target), 2000);
	db_target_free(target);
	target = db_target_new("host=/nonexistent,/nowhere connect_timeout=7", "otp-test", "");
	assert_next(target, "/nonexistent ");
	assert_int_equal(db_target_timeout_ms(target), 7000);
	assert_true(db_target_advance(target));
	assert_next(target, "/nowhere ");
	db_target_free(target);
}

static void a_list_may_come_from_the_environment(void **state)
{
	struct db_target *target;

	(void)state;
	(void)setenv("PGHOST", "127.0.0.1,127.0.0.2", 1);
	(void)setenv("PGPORT", "7", 1);
	target = db_target_new("dbname=otp", "otp-test", "");
	assert_next(target, "127.0.0.1 (127.0.0.1) 7");
	assert_true(db_target_advance(target));
	assert_next(target, "127.0.0.2 (127.0.0.2) 7");
	db_target_free(target);
	(void)unsetenv("PGHOST");
	(void)unsetenv("PGPORT");
}

static void a25_a_message_with_the_password_is_recognised(void **state)
{
	struct db_target *target = db_target_new("postgresql://u:hunter2@127.0.0.1:1/otp", "otp-test", "");

	(void)state;
	assert_true(db_target_quotes_password(target, "could not translate host name \"hunter2\""));
	assert_false(db_target_quotes_password(target, "connection refused"));
	db_target_free(target);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a25_no_malformed_url_is_quoted),
	    cmocka_unit_test(what_libpq_takes_is_taken),
	    cmocka_unit_test(servers_are_tried_in_order_and_the_one_that_worked_first),
	    cmocka_unit_test(one_server_has_more_time),
	    cmocka_unit_test(a_list_may_come_from_the_environment),
	    cmocka_unit_test(a25_a_message_with_the_password_is_recognised),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
