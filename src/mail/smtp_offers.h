/* smtp_offers.h: what a relay offers in its answer to EHLO, and what of it libesmtp may see. */
#ifndef OTP_SMTP_OFFERS_H
#define OTP_SMTP_OFFERS_H

#include <stddef.h>

#define SMTP_OFFERS_HIDDEN 2U

/* {0} at the start of a session. */
struct smtp_offers {
	size_t seen[SMTP_OFFERS_HIDDEN]; /* how much of each hidden keyword ends what was received so far */
	char line[200];                  /* the line under way, cut to fit */
	size_t length;
	char mechanisms[160]; /* of the last AUTH line: how to log in; "": it was not offered */
};

/* For all bytes that a relay sends before the first MAIL, in libesmtp's own buffer, before it parses them. Notes the
   mechanisms of AUTH. Hides CHUNKING, and NTLM, which libesmtp would take before PLAIN and LOGIN, in any case, also if
   the word comes in two reads: with another last letter it is a keyword that nobody knows. Bytes above 0x7F become '?',
   since libesmtp 1.1 uses them as negative indices (tokens.c). */
void smtp_offers_read(struct smtp_offers *offers, char *bytes, size_t length);

#endif
