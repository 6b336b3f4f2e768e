/* challenge.h: the two request functions of schema otp, as batches: what goes into the call and what comes out. */
#ifndef OTP_CHALLENGE_H
#define OTP_CHALLENGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"
#include "db/db_params.h"
#include "http/batch.h"
#include "http/http.h"
#include "otp/code.h"
#include "otp/seal.h"
#include "otp/token.h"

struct pg_result;

/* A batch of requests, and one that goes again alone: that waits for a locked row just as long as another process needs
   for its batch. */
#define CHALLENGE_ALONE "(select set_config('lock_timeout', '50ms', true) as is_set) s, "
#define CHALLENGE_ALONE_IDS "case when is_set is not null then $1::uuid[] end"
#define CHALLENGE_GENERATE "select ord, retry_after from "
#define CHALLENGE_GENERATE_ASKS ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
#define CHALLENGE_GENERATE_SQL CHALLENGE_GENERATE "otp.generate($1" CHALLENGE_GENERATE_ASKS
#define CHALLENGE_GENERATE_ALONE_SQL \
	CHALLENGE_GENERATE CHALLENGE_ALONE "otp.generate(" CHALLENGE_ALONE_IDS CHALLENGE_GENERATE_ASKS
#define CHALLENGE_VALIDATE "select ord, verdict, attempts_left, email, unknown_key from "
#define CHALLENGE_VALIDATE_SQL CHALLENGE_VALIDATE "otp.validate($1, $2, $3, $4, $5)"
#define CHALLENGE_VALIDATE_ALONE_SQL \
	CHALLENGE_VALIDATE CHALLENGE_ALONE "otp.validate(" CHALLENGE_ALONE_IDS ", $2, $3, $4, $5)"

/* A code to be stored and mailed. Strings are the caller's. */
struct challenge_ask {
	struct batch_item item; /* first: a batch of asks is an array of their items */
	unsigned char id[TOKEN_ID_BYTES];
	const char *email;     /* as given */
	const char *recipient; /* where the mail goes; NULL if it is the same as email, so for the next */
	const char *mailbox;   /* what limits count by */
	const char *locale;    /* NULL: the default */
	unsigned char mac[CODE_MAC_BYTES];
	unsigned char sealed[SEAL_BYTES];
};

/* What holds for all asks of a process. */
struct challenge_terms {
	short mac_key;
	short mail_key;
	int lifetime_seconds;
	int max_attempts;
	int resend_seconds;
	int sends_per_hour;
	int sends_per_day;
};

/* Builds the parameters of a batch of asks. */
void challenge_encode_asks(struct db_params *params, struct batch_item *const *items, size_t count,
			   const struct challenge_terms *terms);

/* retry_after[i]: 0 if ask i was stored, else the seconds after which it may be asked again. RESULT_FAULT unless there
   is exactly one answer per ask. */
OTP_MUST_CHECK enum result challenge_decode_asks(const struct pg_result *rows, size_t count, int *retry_after);

/* A guess to be evaluated. */
struct challenge_guess {
	struct batch_item item; /* as in an ask */
	unsigned char id[TOKEN_ID_BYTES];
	bool is_possible; /* false: what was typed cannot be a code; it counts as a guess and is wrong */
	unsigned char mac[CODE_MAC_BYTES];
	unsigned char previous_mac[CODE_MAC_BYTES]; /* under the previous pepper */
};

/* What otp.validate says of a guess, in the words of the answer: HTTP_OK, HTTP_WRONG_PASSWORD, HTTP_EXPIRED, HTTP_USED,
   HTTP_EXHAUSTED, HTTP_UNKNOWN_TOKEN, or HTTP_UNAVAILABLE: the code was made under a key that this process does not
   hold.
 */
struct challenge_answer {
	enum http_outcome verdict;
	int attempts_left; /* HTTP_WRONG_PASSWORD */
	int unknown_key;   /* HTTP_UNAVAILABLE: the key's number */
	const char *email; /* HTTP_OK; lives as long as the rows */
};

/* Builds the parameters of a batch of guesses. previous_key: -1 if there is none. */
void challenge_encode_guesses(struct db_params *params, struct batch_item *const *items, size_t count, short mac_key,
			      short previous_key);

/* As challenge_decode_asks. A verdict that is not known is RESULT_FAULT: it must never pass for success. */
OTP_MUST_CHECK enum result challenge_decode_guesses(const struct pg_result *rows, size_t count,
						    struct challenge_answer *answers);

#endif
