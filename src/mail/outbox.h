/* outbox.h: the queue of mails in the database: claims under a lease, and settlements of what became of them. */
#ifndef OTP_OUTBOX_H
#define OTP_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/result.h"
#include "mail/smtp_reply.h"
#include "otp/address.h"
#include "otp/code.h"
#include "otp/keys.h"
#include "otp/locale.h"
#include "otp/slug.h"
#include "otp/token.h"

#define OUTBOX_LEASE_BYTES 16U

struct outbox;

/* The words of otp.settle_mail. */
enum outbox_outcome { OUTBOX_SENT, OUTBOX_RETRY, OUTBOX_FAILED, OUTBOX_RELEASE };
const char *outbox_outcome_name(enum outbox_outcome outcome);

/* A mail under our lease. */
struct outbox_mail {
	unsigned char id[TOKEN_ID_BYTES];
	unsigned char lease[OUTBOX_LEASE_BYTES];
	unsigned char challenge[TOKEN_ID_BYTES]; /* whose code it is; has the mail's id if it is its first */
	char application[SLUG_MAX + 1];
	char purpose[SLUG_MAX + 1];      /* "": none */
	char recipient[ADDRESS_MAX + 1]; /* as otp-generate parsed it; for the log only masked */
	char locale[LOCALE_BYTES];       /* "": none */
	char code[CODE_MAX + 1];         /* secret */
	int64_t created_ms;              /* since 1970, by the database's clock */
	int64_t expires_ms;
	int attempts;     /* this one included */
	int32_t lease_ms; /* nobody else gets it for so long; it ends before the code does */
	int32_t doubts;   /* how many attempts left in doubt what became of it, or whether it can be delivered at all */
	bool is_sendable;

	/* To be filled in before it is settled; set already if not sendable. */
	enum outbox_outcome outcome;
	struct smtp_reply reply; /* text "": keeps the row's last one */
	int retry_seconds;
	int64_t finished_ms; /* since 1970: when the outcome was known; 0: now */
};

/* Mails that were claimed together. */
struct outbox_batch {
	struct outbox_mail *mails;
	size_t size; /* of mails */
	size_t count;
};

/* Forgets the mails, and with them their codes. */
void outbox_batch_wipe(struct outbox_batch *batch);

/* NULL: out of memory. keys: the worker's, used as long as the outbox lives. */
struct outbox *outbox_new(struct loop *loop, const char *database_url, const struct key_ring *keys);
void outbox_free(struct outbox *outbox);

/* Connects within 5 s, or RESULT_UNAVAILABLE. Does nothing on a live connection. */
OTP_MUST_CHECK enum result outbox_connect(struct outbox *outbox);

/* Records the outcomes in one statement; may be repeated. *lost: how many of them were not ours any more, because the
   lease had ended and another claim came. Results as for db_send. */
OTP_MUST_CHECK enum result outbox_settle(struct outbox *outbox, const struct outbox_batch *batch, size_t *lost);

/* Settles the batch and, in the same transaction, claims up to max mails that are due (0: none). In two halves: the
   database works while the caller sends other mails; nothing else may be asked of the outbox between them. */
OTP_MUST_CHECK enum result outbox_exchange_begin(struct outbox *outbox, const struct outbox_batch *batch, size_t max);

/* RESULT_OK: the batch, the one of outbox_exchange_begin, was settled and now holds what was claimed, with codes
   opened. A mail that cannot be sent (its address or its sealed code is not right) has is_sendable false and its
   outcome. Otherwise what is left in the batch may not be settled, and outbox_settle can do it. *lost: as for
   outbox_settle. */
OTP_MUST_CHECK enum result outbox_exchange_end(struct outbox *outbox, struct outbox_batch *batch, size_t *lost);

/* A mail that cannot be sent whatever happens: it becomes failed for that reason, and is logged. */
void outbox_refuse(struct outbox_mail *mail, const char *reason);

/* Was a mail that this outbox has claimed taken back meanwhile? It is not to be sent, and its outcome is recorded. */
bool outbox_is_withdrawn(struct outbox *outbox, const struct outbox_mail *mail);

/* Waits until mails may have been queued (a hint), the program is to stop, or for timeout_ms. */
void outbox_wait(struct outbox *outbox, int timeout_ms);

#endif
