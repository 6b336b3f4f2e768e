/* smtp_session.h: one SMTP connection to one relay, through libesmtp. */
#ifndef OTP_SMTP_SESSION_H
#define OTP_SMTP_SESSION_H

#include "base/result.h"
#include "mail/smtp_connection.h"

/* Prepares for sessions; before the first. RESULT_FAULT: out of resources. */
OTP_MUST_CHECK enum result smtp_session_prepare(void);
void smtp_session_release(void);

/* Runs the session. Mails get an outcome in order, as far as it comes; the others stay as they are. Returns, and logs,
   how it failed if it took nothing; SMTP_TROUBLE_NONE: at least one mail has its outcome, and is not to be offered to
   this relay again. */
OTP_MUST_CHECK enum smtp_trouble smtp_session_run(struct smtp_connection *session);

#endif
