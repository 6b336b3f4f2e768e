/* smtp_letter.h: the mail under way in a session, and what the relay's replies mean for it. */
#ifndef OTP_SMTP_LETTER_H
#define OTP_SMTP_LETTER_H

#include <stdbool.h>

#include "mail/smtp_mail.h"
#include "mail/smtp_verdict.h"

struct smtp_connection;

/* One mail within a session. */
struct smtp_letter {
	struct smtp_connection *connection;
	struct smtp_mail *mail;
	const char *step;  /* what the relay is to answer: RCPT, DATA or the text */
	bool given;        /* the text was handed over; the next call is its end */
	bool text_ended;   /* and it was read to its end */
	bool is_concluded; /* the mail has its outcome of this session */
};

/* Our word for a relay that says nothing. */
extern const char smtp_letter_lost[];

/* The relay's reply to RCPT. What it says of the mail is concluded; returns whom it means. */
enum smtp_verdict smtp_letter_address(struct smtp_letter *letter, const struct smtp_reply *reply);

/* Its reply to DATA if that was no 354, else the one to the text. */
void smtp_letter_hand_over(struct smtp_letter *letter, const struct smtp_reply *reply);

/* The session has ended without one. */
void smtp_letter_lose(struct smtp_letter *letter);

#endif
