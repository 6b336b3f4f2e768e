/* ticket.h: what a right code earns for the next time: sends that a stranger cannot use up (A19). */
#ifndef OTP_TICKET_H
#define OTP_TICKET_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "otp/keys.h"

#define TICKET_TEXT 48U    /* base64url without padding */
#define TICKET_ID_TEXT 16U /* hexadecimal digits */
#define TICKET_DAYS 180U

/* The key's number, the day (UTC, since 1970), 8 random bytes, and a MAC over these, the application and the mailbox
   (of address_parse) under the newest key of the ring. Nothing is stored. */
void ticket_make(char text[static TICKET_TEXT + 1], const struct key_ring *keys, const char *application,
		 const char *mailbox, uint64_t now_ms, void (*random)(void *bytes, size_t count));

/* Parses untrusted text. id: names the ticket's own count of sends, which it moves to but does not lift.
   RESULT_INVALID, whatever the reason: not of a ticket's form or spelling, forged, of another mailbox or application,
   under a key that is gone, older than TICKET_DAYS, or of the day after tomorrow. */
OTP_MUST_CHECK enum result ticket_read(char id[static TICKET_ID_TEXT + 1], const struct key_ring *keys,
				       const char *text, size_t length, const char *application, const char *mailbox,
				       uint64_t now_ms);

#endif
