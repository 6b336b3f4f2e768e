/* probe.h: what an operator asks first: does each relay take our mail? */
#ifndef OTP_PROBE_H
#define OTP_PROBE_H

#include "mail/composers.h"
#include "mail/smtp_send.h"

/* Tries each relay, step by step as far as MAIL, and prints a line for each step: that it is well, or what is wrong and
   how to mend it. sender: for MAIL FROM, "": the default application's. recipient: who gets a test mail by
   each, "": nobody; untrusted. Returns the exit status. */
int probe_run(struct smtp_send *smtp, const struct composers *composers, const char *sender, const char *recipient);

#endif
