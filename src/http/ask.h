/* ask.h: a code to be made, for a new token or again for an old one, as calls of the database. */
#ifndef OTP_ASK_H
#define OTP_ASK_H

#include "http/challenge.h"
#include "otp/code.h"
#include "otp/locale.h"
#include "otp/seal.h"
#include "otp/token.h"

/* In the order of the statements below. A resend takes two: what its token was made for, then the code. */
enum ask_call { ASK_GENERATE, ASK_TERMS, ASK_RESEND, ASK_CALLS };

/* The statements of a program that asks, between those of the pump and the end. */
#define ASK_STATEMENTS                                                                                      \
	{"generate", CHALLENGE_SQL(ASK_GENERATE_COLUMNS, "generate", ASK_GENERATE_OTHERS)},                 \
	    {"generate_alone", CHALLENGE_ALONE_SQL(ASK_GENERATE_COLUMNS, "generate", ASK_GENERATE_OTHERS)}, \
	    {"terms", CHALLENGE_SQL(ASK_TERMS_COLUMNS, "resend_terms", ASK_TERMS_OTHERS)},                  \
	    {"terms_alone", CHALLENGE_ALONE_SQL(ASK_TERMS_COLUMNS, "resend_terms", ASK_TERMS_OTHERS)},      \
	    {"resend", CHALLENGE_SQL(ASK_RESEND_COLUMNS, "resend", ASK_RESEND_OTHERS)},                     \
	{                                                                                                   \
		"resend_alone", CHALLENGE_ALONE_SQL(ASK_RESEND_COLUMNS, "resend", ASK_RESEND_OTHERS)        \
	}
#define ASK_GENERATE_COLUMNS "retry_after"
#define ASK_GENERATE_OTHERS ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19"
#define ASK_TERMS_COLUMNS "verdict, mailbox, locale, purpose, context, digits::integer, is_test::integer"
#define ASK_TERMS_OTHERS ", $2, $3"
#define ASK_RESEND_COLUMNS "verdict, retry_after"
#define ASK_RESEND_OTHERS ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14"

/* What holds for all that goes together: asks of one application, under one pair of keys. */
struct ask_terms {
	const char *application; /* NULL: the default one */
	int digits;
	int lifetime_seconds;
	int max_attempts;
	int resend_seconds;
	int sends_per_hour;
	int sends_per_day;
	int retention_seconds;
	short mac_key;
	short mail_key;
};

/* Strings are the caller's. */
struct ask {
	struct batch_item item;                /* first: a batch of asks is an array of their items */
	const struct ask_terms *terms;         /* of all asks with this item's group */
	unsigned char id[TOKEN_ID_BYTES];      /* the token's; ASK_TERMS needs nothing else */
	unsigned char mail_id[TOKEN_ID_BYTES]; /* ASK_RESEND: of the new mail */
	const char *email;                     /* as given */
	const char *recipient; /* where the mail goes; NULL if it is the same as email, so for the next */
	const char *mailbox;   /* what limits count by */
	const char *ticket;    /* the id of a ticket; NULL: none, so for the next ones */
	const char *purpose;
	const unsigned char *context;
	const char *locale;
	unsigned char mac[CODE_MAC_BYTES];
	bool is_test; /* no mail: nothing is sealed */
	unsigned char sealed[SEAL_BYTES];
};

/* Builds the parameters of a batch, by the call of its items. */
void ask_encode(struct db_params *params, struct batch_item *const *items, size_t count);

/* What the database says to an ask. */
struct ask_answer {
	enum http_outcome verdict; /* HTTP_OK, HTTP_LIMITED; of a resend also what ended its token */
	int retry_after;           /* HTTP_LIMITED: seconds */
	/* ASK_TERMS and HTTP_OK; texts live as long as the rows. NULL: none. */
	const char *mailbox;
	const char *locale;
	const char *purpose;
	const unsigned char *context;
	int digits;
	bool is_test;
};

/* RESULT_FAULT unless there is exactly one answer that makes sense for each of count asks. */
OTP_MUST_CHECK enum result ask_decode(unsigned call, const struct pg_result *rows, size_t count,
				      struct ask_answer *answers);

#endif
