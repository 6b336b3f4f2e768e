/* test_keys.c: which key files are accepted, by whom, and in which state they must be (B3, B4); the process around
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/complaint.h"
#include "base/log.h"
#include "base/private_file.h"
#include "base/process.h"
#include "otp/keys.h"

#if defined __SANITIZE_ADDRESS__
#define IS_SANITIZED 1 /* LeakSanitizer needs a dumpable process */
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

static char folder[] = "/tmp/otpd-test-XXXXXX";
static int folder_fd;
static int log_file;
static char logged[8192];

static int make_folder(void **state)
{
	(void)state;
	memcpy(folder + sizeof(folder) - 7, "XXXXXX", 6);
	if (mkdtemp(folder) == NULL)
		return -1;
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY);
	complaint_start("otp-test");
	log_start("otp-test", LOG_INFO);
	return folder_fd < 0;
}

static int remove_folder(void **state)
{
	(void)state;
	DIR *listing = opendir(folder);
	for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing))
		if (entry->d_name[0] != '.' && unlinkat(folder_fd, entry->d_name, 0) != 0)
			(void)unlinkat(folder_fd, entry->d_name, AT_REMOVEDIR);
	(void)closedir(listing);
	(void)close(folder_fd);
	return rmdir(folder);
}

static void put_bytes(const char *name, const void *bytes, size_t count, mode_t mode)
{
	(void)unlinkat(folder_fd, name, 0); /* what is not ours to write may still be replaced */
	int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, bytes, count), count);
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
}

/* A key of 32 times byte. */
static void put_key(const char *name, int byte)
{
	unsigned char key[KEY_BYTES];
	memset(key, byte, sizeof(key));
	put_bytes(name, key, sizeof(key), 0400);
}

/* All that otp-validate needs, but the pepper: the tests' subject. */
static int make_folder_of_validate(void **state)
{
	if (make_folder(state) != 0)
		return -1;
	put_key("ticket-1", 9);
	return 0;
}

static void assert_key(const struct key_ring *ring, size_t index, short id, int byte)
{
	unsigned char key[KEY_BYTES];
	memset(key, byte, sizeof(key));
	assert_true(index < ring->count);
	assert_int_equal(ring->id[index], id);
	assert_memory_equal(ring->key[index], key, sizeof(key));
}

static int saved_stderr;

static void capture_log(void)
{
	saved_stderr = dup(STDERR_FILENO);
	log_file = memfd_create("log", 0);
	(void)dup2(log_file, STDERR_FILENO);
}

static void release_log(void)
{
	(void)dup2(saved_stderr, STDERR_FILENO);
	(void)close(saved_stderr);
	ssize_t count = pread(log_file, logged, sizeof(logged) - 1, 0);
	logged[count < 0 ? 0 : count] = '\0';
	(void)close(log_file);
}

static enum result load(struct keys *keys, enum program program)
{
	capture_log();
	enum result result = keys_load(keys, program, folder);
	release_log();
	return result;
}

static enum result read_file(const char *name, char *text, size_t size)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	capture_log();
	enum result result = private_file_read_line(path, text, size);
	release_log();
	return result;
}

/* Refused, with a text that names the file and the reason, and nothing of the keys. */
static void assert_refused(enum program program, const char *name, const char *reason)
{
	struct keys keys, before;
	char expected[256];
	memset(&keys, 0x5A, sizeof(keys));
	before = keys;
	assert_int_equal(load(&keys, program), RESULT_INVALID);
	assert_memory_equal(&keys, &before, sizeof(keys));
	(void)snprintf(expected, sizeof(expected), "otp-test: %s/%s: %s", folder, name, reason);
	if (strstr(logged, expected) == NULL)
		fail_msg("expected %s in %s", expected, logged);
}

static void each_program_gets_its_keys(void **state)
{
	(void)state;
	struct keys keys;
	put_key("pepper-1", 1);
	put_key("mail-1.pub", 2);
	put_key("ticket-1", 4);
	assert_int_equal(load(&keys, PROGRAM_GENERATE), RESULT_OK);
	assert_string_equal(logged, "");
	assert_int_equal(keys.pepper.count, 1);
	assert_key(&keys.pepper, 0, 1, 1);
	assert_int_equal(keys.mail_seal.count, 1);
	assert_key(&keys.mail_seal, 0, 1, 2);
	assert_int_equal(keys.ticket.count, 1);
	assert_key(&keys.ticket, 0, 1, 4);
	assert_int_equal(keys.mail_open.count, 0);
	keys_wipe(&keys);
	static const struct keys wiped;
	assert_memory_equal(&keys, &wiped, sizeof(keys));
	assert_int_equal(unlinkat(folder_fd, "mail-1.pub", 0), 0);
	assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
	assert_key(&keys.pepper, 0, 1, 1);
	assert_key(&keys.ticket, 0, 1, 4);
	keys_wipe(&keys);
	assert_int_equal(unlinkat(folder_fd, "pepper-1", 0), 0);
	assert_int_equal(unlinkat(folder_fd, "ticket-1", 0), 0);
	put_key("mail-1.key", 3);
	assert_int_equal(load(&keys, PROGRAM_WORKER), RESULT_OK);
	assert_key(&keys.mail_open, 0, 1, 3);
	keys_wipe(&keys);
}

static void b3_a_key_of_another_program_is_refused(void **state)
{
	(void)state;
	static const struct {
		enum program program;
		const char *foreign;
	} cases[] = {
	    {PROGRAM_GENERATE, "mail-1.key"}, {PROGRAM_VALIDATE, "mail-1.key"}, {PROGRAM_VALIDATE, "mail-7.pub"},
	    {PROGRAM_WORKER, "pepper-2"},     {PROGRAM_WORKER, "mail-1.pub"},   {PROGRAM_WORKER, "ticket-1"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		static const char *const own[] = {"pepper-1", "ticket-1", "mail-1.pub", "mail-1.key"};
		static const unsigned programs[] = {PROGRAM_GENERATE | PROGRAM_VALIDATE,
						    PROGRAM_GENERATE | PROGRAM_VALIDATE, PROGRAM_GENERATE,
						    PROGRAM_WORKER};
		for (size_t j = 0; j < 4; j++)
			if ((programs[j] & cases[i].program) != 0)
				put_key(own[j], 1);
		struct keys keys;
		assert_int_equal(load(&keys, cases[i].program), RESULT_OK);
		keys_wipe(&keys);
		put_key(cases[i].foreign, 1);
		assert_refused(cases[i].program, cases[i].foreign, "this program must not hold such a key");
		assert_int_equal(unlinkat(folder_fd, cases[i].foreign, 0), 0);
		for (size_t j = 0; j < 4; j++)
			(void)unlinkat(folder_fd, own[j], 0);
	}
}

static void b4_a_key_that_others_may_touch_is_refused(void **state)
{
	(void)state;
	struct keys keys;
	put_key("pepper-1", 1);
	for (mode_t mode = 0; mode <= 0777; mode++) {
		/* A file of root's that our own group may read is one that an orchestrator mounts. */
		bool is_mounted = geteuid() == 0 && (mode & 077) == 040;
		assert_int_equal(fchmodat(folder_fd, "pepper-1", mode | 0400, 0), 0);
		if ((mode & 077) != 0 && !is_mounted) {
			assert_refused(PROGRAM_VALIDATE, "pepper-1", "can be read or written by others: chmod 0400");
		} else {
			assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
			keys_wipe(&keys);
		}
	}
}

/* An ACL as setfacl would write it: the owner, one user, the group, the mask, the others. */
static int put_acl(const char *name, unsigned user, unsigned group_permissions)
{
	struct {
		uint32_t version;
		struct {
			uint16_t tag, permissions;
			uint32_t id;
		} entries[5];
	} acl = {2,
		 {{0x01, 4, UINT32_MAX},
		  {0x02, 4, user},
		  {0x04, (uint16_t)group_permissions, UINT32_MAX},
		  {0x10, 4, UINT32_MAX},
		  {0x20, 0, UINT32_MAX}}};
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return setxattr(path, "system.posix_acl_access", &acl, sizeof(acl), 0);
}

static void b4_a_credential_shared_by_acl_with_us_alone_is_accepted(void **state)
{
	(void)state;
	struct keys keys;
	put_key("pepper-1", 1);
	if (geteuid() != 0 || (put_acl("pepper-1", 0, 0) != 0 && errno == ENOTSUP))
		return; /* systemd alone makes such files; cmocka's TAP for skip() counts as a failure */
	struct stat status;
	assert_int_equal(fstatat(folder_fd, "pepper-1", &status, 0), 0);
	assert_int_equal(status.st_mode & 0777, 0440); /* the mask shows as the group's bits */
	assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
	keys_wipe(&keys);
	assert_int_equal(put_acl("pepper-1", 12345, 0), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "can be read or written by others");
	assert_int_equal(put_acl("pepper-1", 0, 4), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "can be read or written by others");
}

static void b4_a_file_of_roots_is_for_our_own_group(void **state)
{
	(void)state;
	struct keys keys;
	static const struct {
		uid_t user;
		gid_t group;
		mode_t mode;
		bool is_good;
	} cases[] = {
	    {0, 0, 0440, true}, {0, 4711, 0440, false}, {1, 0, 0440, false}, {0, 0, 0460, false}, {0, 0, 0444, false}};
	if (geteuid() != 0)
		return;
	put_key("pepper-1", 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(fchownat(folder_fd, "pepper-1", cases[i].user, cases[i].group, 0), 0);
		assert_int_equal(fchmodat(folder_fd, "pepper-1", cases[i].mode, 0), 0);
		if (cases[i].is_good) {
			assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
			keys_wipe(&keys);
		} else {
			assert_refused(PROGRAM_VALIDATE, "pepper-1",
				       "can be read or written by others: chmod 0400; where an orchestrator");
		}
	}
}

static void b4_what_lies_in_a_foreign_folder_is_not_followed(void **state)
{
	(void)state;
	unsigned char key[KEY_BYTES];
	const char *reason = NULL;
	put_key("real", 1);
	assert_int_equal(keys_read_foreign(folder_fd, "real", key, &reason), RESULT_OK);
	assert_int_equal(symlinkat("real", folder_fd, "pepper-1"), 0);
	assert_int_equal(keys_read_foreign(folder_fd, "pepper-1", key, &reason), RESULT_INVALID);
	assert_non_null(strstr(reason, "is a link"));
	if (geteuid() != 0)
		return;
	/* A hard link to the file of another program's user. */
	assert_int_equal(fchownat(folder_fd, "real", 4711, 0, 0), 0);
	assert_int_equal(linkat(folder_fd, "real", folder_fd, "pepper-2", 0), 0);
	assert_int_equal(keys_read_foreign(folder_fd, "pepper-2", key, &reason), RESULT_INVALID);
	assert_non_null(strstr(reason, "does not belong to the owner of its folder"));
}

static void a_key_of_a_wrong_size_is_refused(void **state)
{
	(void)state;
	unsigned char bytes[100];
	memset(bytes, 7, sizeof(bytes));
	for (size_t size = 0; size < 35; size++) {
		struct keys keys;
		put_bytes("pepper-1", bytes, size, 0400);
		if (size == KEY_BYTES) {
			assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
			keys_wipe(&keys);
		} else {
			assert_refused(PROGRAM_VALIDATE, "pepper-1",
				       size <= 33 ? "is not 32 bytes long" : "is too long");
		}
	}
	memset(bytes, 0, sizeof(bytes));
	put_bytes("pepper-1", bytes, KEY_BYTES, 0400);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "holds only zeros");
}

static void what_is_missing_or_no_file_is_named(void **state)
{
	(void)state;
	assert_refused(PROGRAM_GENERATE, "pepper-1", "is missing: run otp-keygen");
	assert_non_null(strstr(logged, "/mail-1.pub: is missing: run otp-keygen\n"));
	assert_int_equal(mkdirat(folder_fd, "pepper-1", 0700), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "is not a regular file");
	assert_int_equal(unlinkat(folder_fd, "pepper-1", AT_REMOVEDIR), 0);
	assert_int_equal(mkfifoat(folder_fd, "pepper-1", 0400), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "is not a regular file");
	assert_int_equal(unlinkat(folder_fd, "pepper-1", 0), 0);
	assert_int_equal(symlinkat("nowhere", folder_fd, "pepper-1"), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "no such file");
	struct keys keys;
	capture_log();
	assert_int_equal(keys_load(&keys, PROGRAM_VALIDATE, "/nonexistent/keys"), RESULT_INVALID);
	release_log();
	assert_non_null(strstr(logged, "otp-test: /nonexistent/keys: the folder cannot be opened"));
}

static void a_link_counts_as_the_file_behind_it(void **state)
{
	(void)state;
	struct keys keys;
	put_key("real", 9);
	assert_int_equal(symlinkat("real", folder_fd, "pepper-1"), 0);
	assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
	assert_key(&keys.pepper, 0, 1, 9);
	keys_wipe(&keys);
	assert_int_equal(fchmodat(folder_fd, "real", 0444, 0), 0);
	assert_refused(PROGRAM_VALIDATE, "pepper-1", "can be read or written by others");
}

static void the_newest_two_are_kept_in_any_order(void **state)
{
	(void)state;
	/* Folders are listed in an order of their own, often that of making or its reverse. */
	for (int step = -1; step <= 1; step += 2) {
		struct keys keys;
		char name[KEY_NAME_BYTES];
		for (int number = step < 0 ? 30 : 1; number >= 1 && number <= 30; number += step) {
			keys_name(KEY_PEPPER, (short)number, name);
			put_key(name, number);
		}
		assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
		assert_int_equal(keys.pepper.count, 2);
		assert_key(&keys.pepper, 0, 30, 30);
		assert_key(&keys.pepper, 1, 29, 29);
		keys_wipe(&keys);
		for (int number = 1; number <= 30; number++) {
			keys_name(KEY_PEPPER, (short)number, name);
			assert_int_equal(unlinkat(folder_fd, name, 0), 0);
		}
	}
}

static void other_files_are_ignored(void **state)
{
	(void)state;
	struct keys keys;
	static const char *const others[] = {"README",       "pepper-1.bak", "pepper-",       "pepper-01",   "pepper-0",
					     "pepper-32768", "Pepper-1",     ".pepper-1.new", "mail-1.key~", "mail-1"};
	put_key("pepper-32767", 1);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		put_bytes(others[i], "x", 1, 0644);
	assert_int_equal(load(&keys, PROGRAM_VALIDATE), RESULT_OK);
	assert_int_equal(keys.pepper.count, 1);
	assert_key(&keys.pepper, 0, 32767, 1);
	keys_wipe(&keys);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		(void)unlinkat(folder_fd, others[i], 0);
}

static void names_and_numbers_round_trip(void **state)
{
	(void)state;
	char name[KEY_NAME_BYTES];
	for (enum key_kind kind = KEY_PEPPER; kind <= KEY_TICKET; kind++) {
		for (int number = 1; number <= 32767; number++) {
			keys_name(kind, (short)number, name);
			for (enum key_kind other = KEY_PEPPER; other <= KEY_TICKET; other++)
				assert_int_equal(keys_number(other, name), other == kind ? number : 0);
		}
	}
	keys_name(KEY_MAIL_OPEN, 12, name);
	assert_string_equal(name, "mail-12.key");
}

static void b4_a_password_is_read_from_a_private_file(void **state)
{
	(void)state;
	char text[16];
	static const struct {
		const char *content, *expected, *reason;
	} cases[] = {
	    {"hunter2\n", "hunter2", NULL},
	    {"hunter2", "hunter2", NULL},
	    {"hunter2\r\n", "hunter2", NULL},
	    {" pass word ", " pass word ", NULL},
	    {"123456789012345\n", "123456789012345", NULL},
	    {"1234567890123456\n", NULL, "is too long"},
	    {"", NULL, "is empty"},
	    {"\n", NULL, "is empty"},
	    {"a\nb\n", NULL, "holds more than one line of text"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put_bytes("password", cases[i].content, strlen(cases[i].content), 0400);
		memcpy(text, "before", 7);
		if (cases[i].reason == NULL) {
			assert_int_equal(read_file("password", text, sizeof(text)), RESULT_OK);
			assert_string_equal(text, cases[i].expected);
		} else {
			assert_int_equal(read_file("password", text, sizeof(text)), RESULT_INVALID);
			assert_non_null(strstr(logged, cases[i].reason));
			assert_string_equal(text, "before");
		}
	}
	put_bytes("password", "a\0b", 3, 0400);
	assert_int_equal(read_file("password", text, sizeof(text)), RESULT_INVALID);
	put_bytes("password", "hunter2\n", 8, 0444);
	assert_int_equal(read_file("password", text, sizeof(text)), RESULT_INVALID);
	assert_null(strstr(logged, "hunter2"));
	assert_int_equal(read_file("absent", text, sizeof(text)), RESULT_INVALID);
	assert_non_null(strstr(logged, "no such file"));
}

static void the_start_closes_the_process(void **state)
{
	(void)state; /* A12: no core file */
	struct rlimit limit;
	struct sigaction action;
	assert_int_equal(process_start(), RESULT_OK);
	assert_int_equal(process_start(), RESULT_OK); /* a second time does no harm */
	assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
	assert_int_equal(limit.rlim_cur, 0);
	assert_int_equal(limit.rlim_max, 0);
	assert_int_equal(sigaction(SIGPIPE, NULL, &action), 0);
	assert_ptr_equal(action.sa_handler, SIG_IGN);
	assert_int_equal(prctl(PR_GET_DUMPABLE), IS_SANITIZED);
}

static void a_child_draws_other_random_bytes(void **state)
{
	(void)state;
	unsigned char(*bytes)[32] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned char warm[8];
	assert_ptr_not_equal(bytes, MAP_FAILED);
	assert_int_equal(process_start(), RESULT_OK);
	process_random(warm, sizeof(warm));
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		if (child == 0) {
			process_random(bytes[i], 32);
			_exit(0);
		}
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	process_random(bytes[2], 32);
	assert_memory_not_equal(bytes[0], bytes[1], 32);
	assert_memory_not_equal(bytes[0], bytes[2], 32);
	assert_memory_not_equal(bytes[1], bytes[2], 32);
	(void)munmap(bytes, 4096);
}

static void uniform_stays_below_its_bound(void **state)
{
	(void)state;
	unsigned seen = 0;
	for (int i = 0; i < 10000; i++) {
		unsigned value = process_uniform(10);
		assert_true(value < 10);
		seen |= 1U << value;
	}
	assert_int_equal(seen, 0x3FF);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_program_gets_its_keys, make_folder, remove_folder),
	    cmocka_unit_test_setup_teardown(b3_a_key_of_another_program_is_refused, make_folder, remove_folder),
	    cmocka_unit_test_setup_teardown(b4_a_key_that_others_may_touch_is_refused, make_folder_of_validate,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(b4_a_credential_shared_by_acl_with_us_alone_is_accepted,
					    make_folder_of_validate, remove_folder),
	    cmocka_unit_test_setup_teardown(b4_a_file_of_roots_is_for_our_own_group, make_folder_of_validate,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(b4_what_lies_in_a_foreign_folder_is_not_followed, make_folder,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(a_key_of_a_wrong_size_is_refused, make_folder_of_validate, remove_folder),
	    cmocka_unit_test_setup_teardown(what_is_missing_or_no_file_is_named, make_folder_of_validate,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(a_link_counts_as_the_file_behind_it, make_folder_of_validate,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(the_newest_two_are_kept_in_any_order, make_folder_of_validate,
					    remove_folder),
	    cmocka_unit_test_setup_teardown(other_files_are_ignored, make_folder_of_validate, remove_folder),
	    cmocka_unit_test(names_and_numbers_round_trip),
	    cmocka_unit_test_setup_teardown(b4_a_password_is_read_from_a_private_file, make_folder, remove_folder),
	    cmocka_unit_test(the_start_closes_the_process),
	    cmocka_unit_test(a_child_draws_other_random_bytes),
	    cmocka_unit_test(uniform_stays_below_its_bound),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
