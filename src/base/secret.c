/* secret.c: key files, random bytes and the wiping of both. */
#include "base/secret.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define KINDS 3U

static const struct kind {
	const char *prefix, *suffix;
	unsigned programs; /* that may hold it */
} kinds[KINDS] = {
    [SECRET_PEPPER] = {"pepper-", "", PROGRAM_GENERATE | PROGRAM_VALIDATE},
    [SECRET_MAIL_OPEN] = {"mail-", ".key", PROGRAM_WORKER},
    [SECRET_MAIL_SEAL] = {"mail-", ".pub", PROGRAM_GENERATE},
};

/* --- The process --- */

/* LeakSanitizer looks at the process through ptrace, which an undumpable process forbids. */
#if defined __SANITIZE_ADDRESS__
#define IS_DUMPABLE 1L
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define IS_DUMPABLE 1L
#endif
#endif
#ifndef IS_DUMPABLE
#define IS_DUMPABLE 0L
#endif

enum result secret_start(void)
{
	/* The generator that runs in the process, seeded by the kernel: no entropy from a system call per code. A child
	   must not go on with its parent's state. */
	if (randombytes_set_implementation(&randombytes_internal_implementation) != 0 || sodium_init() < 0 ||
	    pthread_atfork(NULL, NULL, randombytes_stir) != 0) {
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "libsodium could not be prepared"));
		return RESULT_FAULT;
	}
	static const struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, IS_DUMPABLE, 0L, 0L, 0L) != 0) {
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "core dumps could not be forbidden"));
		return RESULT_FAULT;
	}
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return RESULT_FAULT;
	return RESULT_OK;
}

void secret_random(void *bytes, size_t count)
{
	randombytes_buf(bytes, count);
}

unsigned secret_uniform(unsigned bound)
{
	return randombytes_uniform(bound);
}

/* --- Files --- */

/* The layout of a POSIX ACL in its extended attribute (acl(5)); all little-endian. */
struct acl_entry {
	uint16_t tag, permissions;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct acl_entry entries[8];
};

enum { ACL_VERSION = 2, ACL_USER_OBJ = 0x01, ACL_USER = 0x02, ACL_MASK = 0x10 };

/* systemd may hand a credential over as root's file with an ACL entry that lets the service's user read it. The group
   bits of its mode are then the ACL's mask: nobody but root and this user reads it. */
static bool acl_allows_only_us(int fd)
{
	struct acl acl;
	ssize_t size = fgetxattr(fd, "system.posix_acl_access", &acl, sizeof acl);
	if (size < (ssize_t)sizeof acl.version || le32toh(acl.version) != ACL_VERSION)
		return false;
	size_t count = ((size_t)size - sizeof acl.version) / sizeof acl.entries[0];
	for (size_t i = 0; i < count; i++) {
		unsigned tag = le16toh(acl.entries[i].tag);
		bool is_us = tag == ACL_USER && le32toh(acl.entries[i].id) == geteuid();
		if (tag != ACL_USER_OBJ && tag != ACL_MASK && !is_us && acl.entries[i].permissions != 0)
			return false;
	}
	return true;
}

static bool is_private(int fd, const struct stat *status)
{
	if ((status->st_mode & 077) == 0)
		return true;
	return (status->st_mode & 037) == 0 && status->st_uid == 0 && acl_allows_only_us(fd);
}

/* Reads up to size bytes of a file for its owner alone. Links are followed, as compose and others hand secrets over by
   links: what counts is the file behind them. O_NONBLOCK: a pipe in its place must not hang us. */
static enum result read_private_file(int folder, const char *path, void *bytes, size_t size, size_t *length,
				     const char **reason)
{
	struct stat status;
	enum result result = RESULT_INVALID;
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		*reason = errno == ENOENT ? "no such file" : "cannot be opened: check its owner and mode";
		return errno == ENOENT ? RESULT_UNAVAILABLE : RESULT_INVALID;
	}
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
		*reason = "is not a regular file";
	} else if (!is_private(fd, &status)) {
		*reason = "can be read or written by others: chmod 0400";
	} else if (status.st_size > (off_t)size) {
		*reason = "is too long";
	} else {
		ssize_t count = read(fd, bytes, size);
		*length = count < 0 ? 0 : (size_t)count;
		*reason = "cannot be read";
		result = count < 0 ? RESULT_INVALID : RESULT_OK;
	}
	(void)close(fd);
	return result;
}

enum result secret_read_key(int folder, const char *name, unsigned char key[static SECRET_KEY_BYTES],
			    const char **reason)
{
	unsigned char bytes[SECRET_KEY_BYTES + 1];
	size_t length = 0;
	enum result result = read_private_file(folder, name, bytes, sizeof bytes, &length, reason);
	if (result == RESULT_OK && length != SECRET_KEY_BYTES) {
		*reason = "is not 32 bytes long";
		result = RESULT_INVALID;
	} else if (result == RESULT_OK && sodium_is_zero(bytes, SECRET_KEY_BYTES)) {
		*reason = "holds only zeros"; /* what a file system may leave of an unwritten file after a crash */
		result = RESULT_INVALID;
	}
	if (result == RESULT_OK)
		memcpy(key, bytes, SECRET_KEY_BYTES);
	sodium_memzero(bytes, sizeof bytes);
	return result;
}

enum result secret_read_file(const char *path, char *text, size_t size)
{
	char bytes[1024];
	size_t length = 0;
	const char *reason = NULL;
	enum result result = read_private_file(AT_FDCWD, path, bytes, sizeof bytes, &length, &reason);
	if (result == RESULT_OK) {
		if (length > 0 && bytes[length - 1] == '\n')
			length--;
		if (length > 0 && bytes[length - 1] == '\r')
			length--;
		if (length == 0)
			reason = "is empty";
		else if (length >= size)
			reason = "is too long";
		else if (memchr(bytes, '\0', length) != NULL || memchr(bytes, '\n', length) != NULL)
			reason = "holds more than one line of text";
		else
			reason = NULL;
	}
	if (reason == NULL) {
		memcpy(text, bytes, length);
		text[length] = '\0';
	} else {
		log_event(LOG_ERROR, "secret_refused", LOG_TEXT("file", path), LOG_TEXT("reason", reason));
		result = RESULT_INVALID;
	}
	sodium_memzero(bytes, sizeof bytes);
	return result;
}

/* --- Keys --- */

short secret_key_number(enum secret_kind kind, const char *name)
{
	const struct kind *form = &kinds[kind];
	size_t prefix = strlen(form->prefix);
	if (strncmp(name, form->prefix, prefix) != 0)
		return 0;
	const char *digits = name + prefix;
	size_t count = strspn(digits, "0123456789");
	if (count == 0 || count > 5 || digits[0] == '0' || strcmp(digits + count, form->suffix) != 0)
		return 0;
	long number = strtol(digits, NULL, 10);
	return (short)(number <= 32767 ? number : 0);
}

void secret_key_name(enum secret_kind kind, short number, char name[static SECRET_NAME_BYTES])
{
	(void)snprintf(name, SECRET_NAME_BYTES, "%s%d%s", kinds[kind].prefix, number, kinds[kind].suffix);
}

static struct secret_keys *keys_of(struct secret *secret, enum secret_kind kind)
{
	switch (kind) {
	case SECRET_PEPPER:
		return &secret->pepper;
	case SECRET_MAIL_OPEN:
		return &secret->mail_open;
	case SECRET_MAIL_SEAL:
		return &secret->mail_seal;
	}
	return NULL;
}

static void refuse(const char *key_dir, const char *name, const char *reason)
{
	log_event(LOG_ERROR, "key_refused", LOG_TEXT("folder", key_dir), LOG_TEXT("file", name),
		  LOG_TEXT("reason", reason));
}

/* Notes a number among the newest two. */
static void keep_newest(struct secret_keys *keys, short number)
{
	if (keys->count > 0 && number < keys->id[0]) {
		if (keys->count == 1 || number > keys->id[1])
			keys->id[1] = number;
		keys->count = SECRET_KEYS_MAX;
		return;
	}
	keys->id[1] = keys->id[0];
	keys->id[0] = number;
	keys->count += keys->count < SECRET_KEYS_MAX;
}

/* Finds the numbers of the keys; files of other names are none of ours. */
static bool list_keys(struct secret *secret, enum program program, const char *key_dir, DIR *folder)
{
	bool is_right = true;
	struct dirent *entry;
	while ((entry = readdir(folder)) != NULL) {
		for (enum secret_kind kind = 0; kind < KINDS; kind++) {
			short number = secret_key_number(kind, entry->d_name);
			if (number == 0)
				continue;
			if ((kinds[kind].programs & (unsigned)program) != 0) {
				keep_newest(keys_of(secret, kind), number);
				continue;
			}
			refuse(key_dir, entry->d_name, "this program must not hold such a key: move it away");
			is_right = false;
		}
	}
	return is_right;
}

static bool read_keys(struct secret *secret, enum secret_kind kind, const char *key_dir, int folder)
{
	struct secret_keys *keys = keys_of(secret, kind);
	bool is_right = keys->count > 0;
	char name[SECRET_NAME_BYTES];
	if (!is_right) {
		secret_key_name(kind, 1, name);
		refuse(key_dir, name, "is missing: run otp-keygen");
	}
	for (size_t i = 0; i < keys->count; i++) {
		const char *reason = NULL;
		secret_key_name(kind, keys->id[i], name);
		if (secret_read_key(folder, name, keys->key[i], &reason) != RESULT_OK) {
			refuse(key_dir, name, reason);
			is_right = false;
		}
	}
	return is_right;
}

enum result secret_load(struct secret *secret, enum program program, const char *key_dir)
{
	struct secret found;
	memset(&found, 0, sizeof found);
	DIR *folder = opendir(key_dir);
	if (folder == NULL) {
		refuse(key_dir, "", "the folder cannot be opened: check KEY_DIR, or run otp-keygen");
		return RESULT_INVALID;
	}
	bool is_right = list_keys(&found, program, key_dir, folder);
	for (enum secret_kind kind = 0; kind < KINDS; kind++)
		if ((kinds[kind].programs & (unsigned)program) != 0)
			is_right = read_keys(&found, kind, key_dir, dirfd(folder)) && is_right;
	(void)closedir(folder);
	if (is_right) {
		/* Out of swap and core files; a low RLIMIT_MEMLOCK is no reason not to serve. */
		if (sodium_mlock(secret, sizeof *secret) != 0)
			log_event(LOG_DEBUG, "keys_not_locked", LOG_TEXT("reason", "RLIMIT_MEMLOCK is too low"));
		*secret = found;
	}
	sodium_memzero(&found, sizeof found);
	return is_right ? RESULT_OK : RESULT_INVALID;
}

void secret_wipe(struct secret *secret)
{
	(void)sodium_munlock(secret, sizeof *secret); /* wipes first */
}
