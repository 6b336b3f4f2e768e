/* smtp_send.h: sends mails to the first relay that can be used. */
#ifndef OTP_SMTP_SEND_H
#define OTP_SMTP_SEND_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_mail.h"
#include "otp/settings.h"

struct smtp_send;

/* Reads the authorities and the password; nothing is connected yet. The sender's address is for MAIL FROM, and its
   domain greets. RESULT_INVALID: refused, with a complaint. */
OTP_MUST_CHECK enum result smtp_send_new(struct smtp_send **smtp, const struct settings *settings);
void smtp_send_free(struct smtp_send *smtp);

/* Sends mails in order to the first relay in order of preference that can be used; one that could not be is not tried
   first for half a minute. All of it ends by deadline_ms (CLOCK_BOOTTIME): a connection that is still open then is cut.
   RESULT_UNAVAILABLE: no relay can be used; every mail is SMTP_RETRY with the reason. What a relay that cannot be used
   said, or what is wrong with it, is one event in the log. */
OTP_MUST_CHECK enum result smtp_send_mails(struct smtp_send *smtp, struct smtp_mail *mails, size_t count,
					   const struct smtp_source *source, uint64_t deadline_ms);

#endif
