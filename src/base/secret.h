/* secret.h: key files, random bytes and the wiping of both. */
#ifndef OTP_SECRET_H
#define OTP_SECRET_H

#include <stddef.h>

#include "base/config.h"
#include "base/result.h"

#define SECRET_KEY_BYTES 32U
#define SECRET_KEYS_MAX 2U

/* A family of numbered keys, newest first: "pepper-2", then the previous one, "pepper-1". */
struct secret_keys {
	size_t count;
	short id[SECRET_KEYS_MAX];
	unsigned char key[SECRET_KEYS_MAX][SECRET_KEY_BYTES];
};

/* The keys one program may hold (requirements B3). Wipe with secret_wipe. */
struct secret {
	struct secret_keys pepper;    /* generate and validate: "pepper-N" */
	struct secret_keys mail_open; /* worker: X25519 private, "mail-N.key" */
	struct secret_keys mail_seal; /* generate: X25519 public, "mail-N.pub" */
};

/* Prepares libsodium, ignores SIGPIPE, forbids core dumps and ptrace: first thing a program does. */
OTP_MUST_CHECK enum result secret_start(void);

/* Reads KEY_DIR for this program: refuses a key that is readable by group or world, of a wrong size, missing, or one
   that this program must not hold. Complaints go to the log, one event each. */
OTP_MUST_CHECK enum result secret_load(struct secret *secret, enum program program, const char *key_dir);
void secret_wipe(struct secret *secret);

/* For otp-keygen. The kinds of key files, by their names in a folder. */
enum secret_kind { SECRET_PEPPER, SECRET_MAIL_OPEN, SECRET_MAIL_SEAL };

/* The number N, 1 to 32767, of a file name of that kind; 0 if it is not of that kind. */
short secret_key_number(enum secret_kind kind, const char *name);

/* Writes that file name. */
#define SECRET_NAME_BYTES 24U
void secret_key_name(enum secret_kind kind, short number, char name[static SECRET_NAME_BYTES]);

/* Reads one key from a folder's descriptor: a regular file of SECRET_KEY_BYTES for its owner alone. RESULT_UNAVAILABLE:
   there is no such file. Unless RESULT_OK, *reason is a static text for a person. */
OTP_MUST_CHECK enum result secret_read_key(int folder, const char *name, unsigned char key[static SECRET_KEY_BYTES],
					   const char **reason);

/* Reads a small secret file (such as a password), trailing newline removed; same rule on its mode. size includes
   the NUL. */
OTP_MUST_CHECK enum result secret_read_file(const char *path, char *text, size_t size);

/* Fills bytes from libsodium's generator; the signature that code.h and token.h take as their random source. */
void secret_random(void *bytes, size_t count);

/* A random number below bound, unbiased. */
unsigned secret_uniform(unsigned bound);

#endif
