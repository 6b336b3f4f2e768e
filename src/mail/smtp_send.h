/* smtp_send.h: delivers mails to a relay by SMTP, several over one connection. */
#ifndef OTP_SMTP_SEND_H
#define OTP_SMTP_SEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/result.h"
#include "mail/smtp_mail.h"

struct smtp_send;

/* Reads the relays, the authorities and the password; nothing is connected yet. sender: the address for MAIL FROM,
   whose domain also greets. RESULT_INVALID: refused and logged, naming the setting. */
OTP_MUST_CHECK enum result smtp_send_new(struct smtp_send **mail, const struct config *config, const char *sender);
void smtp_send_free(struct smtp_send *mail);

/* Sends jobs in order to the first relay in order of preference that can be used; one that could not be is not tried
   first for half a minute. All of it ends by deadline_ms (CLOCK_BOOTTIME): a connection that is still open then is cut.
   RESULT_UNAVAILABLE: no relay can be used; every job is SMTP_RETRY with the reason. What a relay that cannot be used
   said, or what is wrong with it, is one event in the log. */
OTP_MUST_CHECK enum result smtp_send_mails(struct smtp_send *mail, struct smtp_mail *jobs, size_t count,
					   const struct smtp_source *source, uint64_t deadline_ms);

#endif
