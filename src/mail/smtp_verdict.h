/* smtp_verdict.h: whom a relay's refusal means: the recipient, us, or nobody can tell. */
#ifndef OTP_SMTP_VERDICT_H
#define OTP_SMTP_VERDICT_H

#include "mail/smtp_reply.h"

enum smtp_verdict {
	SMTP_ACCEPTS,           /* 2xx */
	SMTP_REFUSES_FOR_NOW,   /* 4xx, or no reply at all */
	SMTP_CLOSES,            /* 421: this connection ends, whatever was asked (RFC 5321 3.8) */
	SMTP_REFUSES_RECIPIENT, /* for good */
	SMTP_REFUSES_US,        /* our login, sender, address, software or quota: somebody must mend it */
	SMTP_REFUSES_UNCLEARLY  /* 5xx, and it does not say whom */
};

/* What a relay's reply to RCPT, DATA or the text says. The enhanced code (RFC 3463) decides, where there is one; words
   never do, since every relay has its own. */
enum smtp_verdict smtp_verdict_of(const struct smtp_reply *reply);

#endif
