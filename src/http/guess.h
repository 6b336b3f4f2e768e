/* guess.h: a token and what its holder wants of it, a code to be evaluated first of all, as calls of the database. */
#ifndef OTP_GUESS_H
#define OTP_GUESS_H

#include <stdbool.h>

#include "http/challenge.h"
#include "otp/code.h"
#include "otp/token.h"

/* In the order of the statements below. */
enum guess_call { GUESS_VALIDATE, GUESS_REVOKE, GUESS_DELIVERY };

#define GUESS_STATEMENTS                                                                                        \
	{"validate", CHALLENGE_SQL(GUESS_VALIDATE_COLUMNS, "validate", GUESS_VALIDATE_OTHERS)},                 \
	    {"validate_alone", CHALLENGE_ALONE_SQL(GUESS_VALIDATE_COLUMNS, "validate", GUESS_VALIDATE_OTHERS)}, \
	    {"revoke", CHALLENGE_SQL("verdict", "revoke_tokens", ", $2")},                                      \
	    {"revoke_alone", CHALLENGE_ALONE_SQL("verdict", "revoke_tokens", ", $2")},                          \
	    {"delivery", CHALLENGE_SQL(GUESS_DELIVERY_COLUMNS, "delivery_status", ", $2")},                     \
	{                                                                                                       \
		"delivery_alone", CHALLENGE_ALONE_SQL(GUESS_DELIVERY_COLUMNS, "delivery_status", ", $2")        \
	}
#define GUESS_VALIDATE_COLUMNS "verdict, number, email, mailbox, purpose, is_test::integer"
#define GUESS_VALIDATE_OTHERS ", $2, $3, $4, $5, $6, $7, $8, $9"
#define GUESS_DELIVERY_COLUMNS                                                             \
	"verdict, to_char(sent_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), " \
	"coalesce(attempts, 0), reason, is_test::integer"

/* Strings are the caller's; NULL: none. */
struct guess {
	struct batch_item item;  /* first, as in an ask */
	const char *application; /* NULL: the default one */
	unsigned char id[TOKEN_ID_BYTES];
	/* GUESS_VALIDATE */
	const char *purpose;
	const unsigned char *context;
	int digits; /* that were typed; 0: something that cannot be a code */
	unsigned char mac[CODE_MAC_BYTES];
	unsigned char previous_mac[CODE_MAC_BYTES]; /* under the previous pepper */
};

/* The numbers of the peppers that MACs are made with. previous: -1 if there is none. */
struct guess_keys {
	short newest;
	short previous;
};

/* Builds the parameters of a batch, by the call of its items. */
void guess_encode(struct db_params *params, struct batch_item *const *items, size_t count,
		  const struct guess_keys *keys);

/* What the database says; texts live as long as the rows, NULL: none. */
struct guess_answer {
	enum http_outcome verdict; /* HTTP_UNAVAILABLE: a code was made under a key that this process does not hold */
	int number;                /* HTTP_WRONG_PASSWORD: attempts left; HTTP_UNAVAILABLE: of that key */
	bool is_test;
	/* GUESS_VALIDATE and HTTP_OK */
	const char *email;
	const char *mailbox;
	const char *purpose;
	/* GUESS_DELIVERY and HTTP_OK */
	const char *state;
	const char *sent_at;
	const char *reason;
	int attempts;
};

/* As ask_decode. */
OTP_MUST_CHECK enum result guess_decode(unsigned call, const struct pg_result *rows, size_t count,
					struct guess_answer *answers);

#endif
