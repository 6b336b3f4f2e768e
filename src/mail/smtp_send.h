/* smtp_send.h: sends mails to the first relay that takes them. */
#ifndef OTP_SMTP_SEND_H
#define OTP_SMTP_SEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_connection.h"
#include "mail/smtp_mail.h"
#include "otp/settings.h"

struct smtp_send;

/* Reads the authorities and the password; nothing is connected yet. RESULT_INVALID: refused, with a complaint. */
OTP_MUST_CHECK enum result smtp_send_new(struct smtp_send **smtp, const struct settings *settings);
void smtp_send_free(struct smtp_send *smtp);

/* Sends mails in order to the first relay in order of preference that can be used, and what one leaves to the next. A
   relay that takes nothing is asked after the others for a while, longer each time, and then gets one mail. All of it
   ends by deadline_ms (CLOCK_BOOTTIME): a connection that is still open then is cut. What no relay has heard of stays
   SMTP_UNTRIED, with the reason as reply if no relay could be used. What a relay that takes nothing said, or what is
   wrong with it, is one event in the log. */
void smtp_send_mails(struct smtp_send *smtp, struct smtp_mail *mails, size_t count, const struct smtp_source *source,
		     uint64_t deadline_ms);

/* For a probe of each relay. */
struct smtp_relays *smtp_send_relays(struct smtp_send *smtp);
const struct smtp_identity *smtp_send_identity(const struct smtp_send *smtp);

/* How long no relay should be asked; 0: send on. */
uint64_t smtp_send_wait_ms(const struct smtp_send *smtp);

/* Is there a relay that was not in trouble when it was last asked? If not, one mail is enough to find out. */
bool smtp_send_is_well(const struct smtp_send *smtp);

#endif
