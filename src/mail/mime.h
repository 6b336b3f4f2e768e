/* mime.h: how text stands in a mail: headers (RFC 5322, 2047) and bodies (RFC 2045). */
#ifndef OTP_MIME_H
#define OTP_MIME_H

#include <stddef.h>
#include <time.h>

#include "base/text.h"
#include "otp/sender.h"

/* Whole headers, line end included; what is not plain ASCII becomes encoded words, folded. text: UTF-8 without control
   characters. */
void mime_put_subject(struct text *page, const char *text);
void mime_put_mailbox(struct text *page, const char *header, const struct sender *mailbox); /* header: "From: " */

/* "Fri, 03 May 2024 14:05:06 +0000", whatever the process's locale. */
void mime_put_date(struct text *page, const struct tm *utc);

/* Quoted-printable of text with LF line ends; it ends with a line end. */
void mime_put_quoted(struct text *page, const char *text, size_t length);

#endif
