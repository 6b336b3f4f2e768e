/* keys.h: the key files of a program: which it may hold, and how they are numbered. */
#ifndef OTP_KEYS_H
#define OTP_KEYS_H

#include <stddef.h>

#include "base/result.h"
#include "otp/settings.h"

#define KEY_BYTES 32U
#define KEY_RING_MAX 2U

/* A family of numbered keys, newest first: "pepper-2", then the previous one, "pepper-1". */
struct key_ring {
	size_t count;
	short id[KEY_RING_MAX];
	unsigned char key[KEY_RING_MAX][KEY_BYTES];
};

/* The keys one program may hold (B3). Wipe with keys_wipe. */
struct keys {
	struct key_ring pepper;    /* generate and validate: "pepper-N" */
	struct key_ring mail_open; /* worker: X25519 private, "mail-N.key" */
	struct key_ring mail_seal; /* generate: X25519 public, "mail-N.pub" */
	struct key_ring ticket;    /* generate and validate: "ticket-N" */
};

/* Reads KEY_DIR for this program: refuses a key that is readable by group or world, of a wrong size, missing, or one
   that this program must not hold; each is complained of. */
OTP_MUST_CHECK enum result keys_load(struct keys *keys, enum program program, const char *folder);
void keys_wipe(struct keys *keys);

/* For otp-keygen. The kinds of key files, by their names in a folder. */
enum key_kind { KEY_PEPPER, KEY_MAIL_OPEN, KEY_MAIL_SEAL, KEY_TICKET };

/* The number N, 1 to 32767, of a file name of that kind; 0 if it is not of that kind. */
short keys_number(enum key_kind kind, const char *name);

/* Writes that file name. */
#define KEY_NAME_BYTES 24U
void keys_name(enum key_kind kind, short number, char name[static KEY_NAME_BYTES]);

/* Reads one key from an open folder that may be somebody else's: a regular file of KEY_BYTES for its owner alone.
   RESULT_UNAVAILABLE: there is no such file. Unless RESULT_OK, *reason is a static text for a person. */
OTP_MUST_CHECK enum result keys_read_foreign(int folder, const char *name, unsigned char key[static KEY_BYTES],
					     const char **reason);

#endif
