/* smtp_offers.c: what a relay offers in its answer to EHLO, and what of it libesmtp may see. */
#include "mail/smtp_offers.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The first letter of each stands nowhere else in it: a mismatch begins anew, or not at all. */
static const char *const hidden[SMTP_OFFERS_HIDDEN] = {"CHUNKING", "NTLM"};

static char upper(char byte)
{
	return (char)(byte >= 'a' && byte <= 'z' ? byte - 'a' + 'A' : byte);
}

/* Does a hidden keyword end with this byte? */
static int ends_hidden(struct smtp_offers *offers, char byte)
{
	char letter = upper(byte);
	int found = 0;

	for (size_t i = 0; i < SMTP_OFFERS_HIDDEN; i++) {
		size_t *seen = &offers->seen[i];

		*seen = letter == hidden[i][*seen] ? *seen + 1 : letter == hidden[i][0];
		if (hidden[i][*seen] == '\0') {
			*seen = 0;
			found = 1;
		}
	}
	return found;
}

/* Keeps the mechanisms of a whole line such as "250-AUTH PLAIN LOGIN". */
static void read_line(struct smtp_offers *offers)
{
	const char *mechanisms = offers->line + strlen("250-AUTH ");

	offers->line[offers->length] = '\0';
	if (strncasecmp(offers->line, "250", 3) == 0 && strncasecmp(offers->line + 4, "AUTH ", 5) == 0)
		(void)snprintf(offers->mechanisms, sizeof(offers->mechanisms), "%.*s", (int)strcspn(mechanisms, "\r\n"),
			       mechanisms);
	offers->length = 0;
}

void smtp_offers_read(struct smtp_offers *offers, char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)bytes[i] > 0x7F)
			bytes[i] = '?';
		if (offers->length < sizeof(offers->line) - 1)
			offers->line[offers->length++] = bytes[i];
		if (bytes[i] == '\n')
			read_line(offers);
		if (ends_hidden(offers, bytes[i]))
			bytes[i] = '-';
	}
}
