/* keys.c: the key files of a program: which it may hold, and how they are numbered. */
#include "otp/keys.h"

#include <dirent.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"
#include "base/log.h"
#include "base/private_file.h"

#define KINDS 4U

static const struct kind {
	const char *prefix, *suffix;
	unsigned programs; /* that may hold it */
	size_t offset;     /* of its ring in struct keys */
} kinds[KINDS] = {
    [KEY_PEPPER] = {"pepper-", "", PROGRAM_GENERATE | PROGRAM_VALIDATE, offsetof(struct keys, pepper)},
    [KEY_MAIL_OPEN] = {"mail-", ".key", PROGRAM_WORKER, offsetof(struct keys, mail_open)},
    [KEY_MAIL_SEAL] = {"mail-", ".pub", PROGRAM_GENERATE, offsetof(struct keys, mail_seal)},
    [KEY_TICKET] = {"ticket-", "", PROGRAM_GENERATE | PROGRAM_VALIDATE, offsetof(struct keys, ticket)},
};

typedef enum result file_reader(int folder, const char *name, void *bytes, size_t size, size_t *length,
				const char **reason);

static enum result read_key(file_reader *read, int folder, const char *name, unsigned char key[static KEY_BYTES],
			    const char **reason)
{
	unsigned char bytes[KEY_BYTES + 1];
	size_t length = 0;
	enum result result = read(folder, name, bytes, sizeof(bytes), &length, reason);

	if (result == RESULT_OK && length != KEY_BYTES) {
		*reason = "is not 32 bytes long";
		result = RESULT_INVALID;
	} else if (result == RESULT_OK && sodium_is_zero(bytes, KEY_BYTES)) {
		*reason = "holds only zeros"; /* what a file system may leave of an unwritten file after a crash */
		result = RESULT_INVALID;
	}
	if (result == RESULT_OK)
		memcpy(key, bytes, KEY_BYTES);
	sodium_memzero(bytes, sizeof(bytes));
	return result;
}

enum result keys_read_foreign(int folder, const char *name, unsigned char key[static KEY_BYTES], const char **reason)
{
	return read_key(private_file_read_foreign, folder, name, key, reason);
}

/* --- Names --- */

short keys_number(enum key_kind kind, const char *name)
{
	const struct kind *form = &kinds[kind];
	size_t prefix = strlen(form->prefix);
	const char *digits = name + prefix;
	size_t count;
	long number;

	if (strncmp(name, form->prefix, prefix) != 0)
		return 0;
	count = strspn(digits, "0123456789");
	if (count == 0 || count > 5 || digits[0] == '0' || strcmp(digits + count, form->suffix) != 0)
		return 0;
	number = strtol(digits, NULL, 10);
	return (short)(number <= 32767 ? number : 0);
}

void keys_name(enum key_kind kind, short number, char name[static KEY_NAME_BYTES])
{
	(void)snprintf(name, KEY_NAME_BYTES, "%s%d%s", kinds[kind].prefix, number, kinds[kind].suffix);
}

/* --- A program's folder --- */

static struct key_ring *ring_of(struct keys *keys, enum key_kind kind)
{
	return (struct key_ring *)((char *)keys + kinds[kind].offset);
}

/* name "": the folder itself. */
static void refuse(const char *folder, const char *name, const char *reason)
{
	char place[COMPLAINT_PLACE_BYTES];

	(void)snprintf(place, sizeof(place), "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
	complain(place, "%s", reason);
}

/* Notes a number among the newest two. */
static void keep_newest(struct key_ring *ring, short number)
{
	if (ring->count > 0 && number < ring->id[0]) {
		if (ring->count == 1 || number > ring->id[1])
			ring->id[1] = number;
		ring->count = KEY_RING_MAX;
		return;
	}
	ring->id[1] = ring->id[0];
	ring->id[0] = number;
	ring->count += ring->count < KEY_RING_MAX;
}

/* Takes a file among the keys if it is one; files of other names are none of ours. False: it must not be here. */
static bool note_file(struct keys *keys, enum program program, const char *folder, const char *name)
{
	for (enum key_kind kind = 0; kind < KINDS; kind++) {
		short number = keys_number(kind, name);

		if (number == 0)
			continue;
		if ((kinds[kind].programs & (unsigned)program) == 0) {
			refuse(folder, name, "this program must not hold such a key: move it away");
			return false;
		}
		keep_newest(ring_of(keys, kind), number);
	}
	return true;
}

static bool read_ring(struct key_ring *ring, enum key_kind kind, const char *folder, int descriptor)
{
	bool is_right = ring->count > 0;
	char name[KEY_NAME_BYTES];

	if (!is_right) {
		keys_name(kind, 1, name);
		refuse(folder, name, "is missing: run otp-keygen");
	}
	for (size_t i = 0; i < ring->count; i++) {
		const char *reason = NULL;

		keys_name(kind, ring->id[i], name);
		if (read_key(private_file_read, descriptor, name, ring->key[i], &reason) != RESULT_OK) {
			refuse(folder, name, reason);
			is_right = false;
		}
	}
	return is_right;
}

static bool read_folder(struct keys *keys, enum program program, const char *folder, DIR *listing)
{
	const struct dirent *entry;
	bool is_right = true;

	while ((entry = readdir(listing)) != NULL)
		is_right = note_file(keys, program, folder, entry->d_name) && is_right;
	for (enum key_kind kind = 0; kind < KINDS; kind++)
		if ((kinds[kind].programs & (unsigned)program) != 0)
			is_right = read_ring(ring_of(keys, kind), kind, folder, dirfd(listing)) && is_right;
	return is_right;
}

enum result keys_load(struct keys *keys, enum program program, const char *folder)
{
	DIR *listing = opendir(folder);
	struct keys found;
	bool is_right;

	if (listing == NULL) {
		refuse(folder, "", "the folder cannot be opened: check KEY_DIR, or run otp-keygen");
		return RESULT_INVALID;
	}
	memset(&found, 0, sizeof(found));
	is_right = read_folder(&found, program, folder, listing);
	(void)closedir(listing);
	if (is_right) {
		/* Out of swap and core files; a low RLIMIT_MEMLOCK is no reason not to serve. */
		if (sodium_mlock(keys, sizeof(*keys)) != 0)
			log_event(LOG_DEBUG, "keys_not_locked", LOG_TEXT("reason", "RLIMIT_MEMLOCK is too low"));
		*keys = found;
	}
	sodium_memzero(&found, sizeof(found));
	return is_right ? RESULT_OK : RESULT_INVALID;
}

void keys_wipe(struct keys *keys)
{
	(void)sodium_munlock(keys, sizeof(*keys)); /* wipes first */
}
