/* mail.h: what holds for the bytes of every mail, whatever went into it. */
#ifndef OTP_FUZZ_MAIL_H
#define OTP_FUZZ_MAIL_H

#include <stdbool.h>

#include "fuzz.h"
#include "mail/composers.h"
#include "otp/applications.h"

#define LINE_MAX_BYTES 998U /* RFC 5322 2.1.1 */

/* The headers in their order, each once; the text behind the colon of To is the recipient. */
static inline const char *mail_check_headers(const char *at, const char *recipient)
{
	static const char *const names[] = {"Date: ",
					    "From: ",
					    "To: ",
					    "Message-ID: ",
					    "Subject: ",
					    "Auto-Submitted: ",
					    "X-Auto-Response-Suppress: ",
					    "X-Entity-Ref-ID: ",
					    "MIME-Version: ",
					    "Content-Type: "};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *end = strstr(at, "\r\n");
		FUZZ_ASSERT(strncmp(at, names[i], strlen(names[i])) == 0);
		if (i == 2)
			FUZZ_ASSERT((size_t)(end - at) == 4 + strlen(recipient) &&
				    memcmp(at + 4, recipient, strlen(recipient)) == 0);
		while (end[2] == ' ') /* folded */
			end = strstr(end + 2, "\r\n");
		at = end + 2;
	}
	FUZZ_ASSERT(strncmp(at, "\r\n", 2) == 0);
	return at;
}

/* Lines of printable ASCII that end with CR LF, and the headers that are meant. message is NUL-terminated. */
static inline void mail_check(const char *message, size_t length, const char *recipient)
{
	size_t column = 0;
	FUZZ_ASSERT(strlen(message) == length && length > 2);
	for (size_t i = 0; i < length; i++) {
		bool is_end = message[i] == '\r' && message[i + 1] == '\n';
		if (is_end)
			i++;
		else
			FUZZ_ASSERT(message[i] >= ' ' && message[i] <= '~');
		column = is_end ? 0 : column + 1;
		FUZZ_ASSERT(column <= LINE_MAX_BYTES);
	}
	FUZZ_ASSERT(column == 0);
	(void)mail_check_headers(message, recipient);
}

/* The composer of the one application that the settings describe; NULL: refused. */
static inline struct composers *mail_compose(const struct settings *settings)
{
	struct applications *applications = NULL;
	struct composers *composers = NULL;
	FUZZ_ASSERT(applications_load(&applications, settings, 0) == RESULT_OK);
	enum result result = composers_load(&composers, applications, settings);
	applications_free(applications);
	FUZZ_ASSERT((result == RESULT_OK) == (composers != NULL));
	return composers;
}

/* Builds the mail of one request and checks it. */
static inline const char *mail_build_and_check(const struct composers *composers, const char *recipient,
					       const char *locale)
{
	static char out[MESSAGE_BYTES];
	struct message_request request = {.id = "an id of a row",
					  .recipient = recipient,
					  .code = "31415926",
					  .locale = locale,
					  .purpose = "sign-in",
					  .created_ms = 1700000000000,
					  .expires_ms = 1700000600000};
	size_t length = 0;
	FUZZ_ASSERT(message_build(composers_find(composers, APPLICATION_DEFAULT), &request, out, sizeof(out),
				  &length) == RESULT_OK);
	mail_check(out, length, recipient);
	return out;
}

#endif
