/* address.h: what an email address is here, and which spellings are one mailbox. */
#ifndef OTP_ADDRESS_H
#define OTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

#define ADDRESS_MAX 254U /* RFC 5321 4.5.3.1.3 less the angle brackets */

/* All three are NUL-terminated and hold no control byte, space, or letter outside ASCII in the local part. They are
   made of the same bytes: what is answered, mailed and counted is one mailbox. */
struct address {
	char given[ADDRESS_MAX * 2 + 1]; /* as asked for, without what surrounds it; a domain may be UTF-8 */
	char recipient[ADDRESS_MAX + 1]; /* where the mail goes: quoted if need be, domain in lower-case A-labels */
	char mailbox[ADDRESS_MAX + 1]; /* one spelling per mailbox, for limits: lower case, without quotes and +tag, and
					  without what its provider ignores */
};

/* Parses untrusted text (length bytes, may hold NULs). Accepts a local part of 1 to 64 bytes of RFC 5322's atext with
   dots anywhere, bare or quoted (Japanese carriers gave out "a..b@docomo.ne.jp"), and a domain of at least two labels,
   in ASCII as DNS allows or in Unicode, of which only the case may differ from what its A-label shows. Invisible
   characters around it are removed, a full-width @ and full-width dots count as such. Refuses other quoted local parts,
   address literals, comments and local parts outside ASCII (libesmtp has no SMTPUTF8).

   RESULT_INVALID: *reason is a static ASCII sentence for the caller: which part, and why. RESULT_FAULT: memory ran out.
 */
OTP_MUST_CHECK enum result address_parse(struct address *address, const char *text, size_t length, const char **reason);

/* Is text a recipient as address_parse writes them, to the byte? For what comes back from a table. */
bool address_is_recipient(const char *text);

#endif
