/* smtp_offers.c: what a relay offers in its answer to EHLO, as far as libesmtp may see it. */
#include "mail/smtp_offers.h"

static char upper(char byte)
{
	return (char)(byte >= 'a' && byte <= 'z' ? byte - 'a' + 'A' : byte);
}

void smtp_offers_hide(struct smtp_offers *offers, char *bytes, size_t length)
{
	/* Its first letter stands nowhere else in it: a mismatch begins anew, or not at all. */
	static const char hidden[] = "CHUNKING";

	for (size_t i = 0; i < length; i++) {
		char letter = upper(bytes[i]);

		offers->seen = letter == hidden[offers->seen] ? offers->seen + 1 : letter == hidden[0];
		if (hidden[offers->seen] == '\0') {
			bytes[i] = '-';
			offers->seen = 0;
		} else if ((unsigned char)bytes[i] > 0x7F) {
			bytes[i] = '?';
		}
	}
}
