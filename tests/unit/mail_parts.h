/* mail_parts.h: what the tests of mails look at. */
#ifndef OTP_TEST_MAIL_PARTS_H
#define OTP_TEST_MAIL_PARTS_H

#include <stdio.h>
#include <string.h>

#include "mail/message.h"

static inline void assert_has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("\"%s\" is not in:\n%s", part, text);
}

/* CRLF only, 7-bit, no control byte, lines of at most 76 bytes (encoded ones) or limit. */
static inline void assert_wire_safe(const char *text, size_t limit)
{
	size_t line = 0;

	for (size_t i = 0; text[i] != '\0'; i++) {
		if (text[i] == '\r') {
			assert_int_equal(text[i + 1], '\n');
			assert_true(line <= limit);
			line = 0;
			i++;
			continue;
		}
		assert_true(text[i] >= 0x20 && text[i] <= 0x7E);
		line++;
	}
	assert_int_equal(line, 0);
}

/* Undoes quoted-printable from the part with this type up to the next boundary. */
static inline const char *decoded_part(const char *text, const char *type)
{
	static char decoded[MESSAGE_BYTES];
	const char *at = strstr(text, type);
	size_t used = 0;

	assert_non_null(at);
	at = strstr(at, "\r\n\r\n");
	assert_non_null(at);
	for (at += 4; strncmp(at, "--=_", 4) != 0; at++) {
		unsigned value;

		assert_true(*at != '\0');
		if (*at != '=') {
			decoded[used++] = *at;
			continue;
		}
		if (at[1] != '\r') {
			assert_int_equal(sscanf(at + 1, "%2X", &value), 1);
			decoded[used++] = (char)value;
		}
		at += 2;
	}
	decoded[used] = '\0';
	return decoded;
}

#endif
