/* address.h: what an email address is here, and which spellings are one mailbox. */
#ifndef OTP_ADDRESS_H
#define OTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

#define ADDRESS_MAX 254U /* RFC 5321 4.5.3.1.3 less the angle brackets */

/* All three are NUL-terminated and hold no control byte, space, or non-ASCII local part. They are made of the same
   bytes: what is answered, mailed and counted is one mailbox. */
struct address {
	char given[ADDRESS_MAX * 2 + 1]; /* as asked for, surrounding white space removed; a U-label domain is UTF-8 */
	char recipient[ADDRESS_MAX + 1]; /* where the mail goes: local part as given, domain in lower-case A-labels */
	char mailbox[ADDRESS_MAX + 1];   /* one spelling per mailbox, for limits: lower case, without +tag */
};

/* Parses untrusted text (length bytes, may hold NULs). Accepts an RFC 5321 dot-string local part of 1 to 64 bytes and
   a domain of at least two labels; a U-label may differ from what its A-label shows in case only. Refuses quoted local
   parts, address literals, comments and non-ASCII local parts (libesmtp has no SMTPUTF8). Spaces and tabs around it are
   removed. RESULT_INVALID if it is none; RESULT_FAULT if memory ran out. */
OTP_MUST_CHECK enum result address_parse(struct address *address, const char *text, size_t length);

/* Is text a recipient as address_parse writes them, to the byte? For what comes back from a table. */
bool address_is_recipient(const char *text);

#endif
