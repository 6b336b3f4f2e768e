/* smtp_reply.h: what a mail relay answered, kept as clean text. */
#ifndef OTP_SMTP_REPLY_H
#define OTP_SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#define SMTP_REPLY_BYTES 240U

/* code: the SMTP code, 0 if the text is our own word for what went wrong. */
struct smtp_reply {
	int code;
	int enhanced[3];             /* RFC 3463, such as 5.1.1; {0}: there is none */
	char text[SMTP_REPLY_BYTES]; /* with the code in front, one line of printable ASCII */
};

/* Keeps a reply of the relay. enhanced: the RFC 2034 triplet if libesmtp parsed it off the text, else {0}; then one at
   the head of the text counts, or as qmail writes it, "(#5.1.1)". text: untrusted, may hold anything; what is not
   printable ASCII becomes a space or '?', and it is cut to fit. */
void smtp_reply_set(struct smtp_reply *reply, int code, const int enhanced[static 3], const char *text);

/* Keeps our own words. */
void smtp_reply_say(struct smtp_reply *reply, const char *text);

/* Replaces every occurrence of secret in the text, in upper or lower case, by stars, and its beginning where the text
   was cut within it: a relay may quote the mail. */
void smtp_reply_mask(struct smtp_reply *reply, const char *secret);

/* 2xx */
bool smtp_reply_is_positive(const struct smtp_reply *reply);

#endif
