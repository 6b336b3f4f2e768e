/* smtp_offers.h: what a relay offers in its answer to EHLO, as far as libesmtp may see it. */
#ifndef OTP_SMTP_OFFERS_H
#define OTP_SMTP_OFFERS_H

#include <stddef.h>

/* How much of a hidden keyword ends what was received so far; {0} at the start of a session. */
struct smtp_offers {
	size_t seen;
};

/* For all bytes that a relay sends before the first MAIL, in libesmtp's own buffer, before it parses them. Hides
   CHUNKING, in any case, also if it comes in two reads: with another last letter it is a keyword that nobody knows.
   Bytes above 0x7F become '?', since libesmtp 1.1 uses them as negative indices (tokens.c). */
void smtp_offers_hide(struct smtp_offers *offers, char *bytes, size_t length);

#endif
