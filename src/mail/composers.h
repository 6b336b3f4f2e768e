/* composers.h: who makes the mails of each application. */
#ifndef OTP_COMPOSERS_H
#define OTP_COMPOSERS_H

#include "base/result.h"
#include "mail/message.h"
#include "otp/applications.h"
#include "otp/settings.h"

struct composers;

/* Reads all texts and makes a composer for each application; all or none. RESULT_INVALID: refused; each reason is a
   complaint. Nothing points into applications afterwards. */
OTP_MUST_CHECK enum result composers_load(struct composers **composers, const struct applications *applications,
					  const struct settings *settings);
void composers_free(struct composers *composers);

/* NULL: there is no application of that name. */
const struct message_composer *composers_find(const struct composers *composers, const char *application);

#endif
