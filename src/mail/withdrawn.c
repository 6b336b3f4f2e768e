/* withdrawn.c: mails that were taken back while a delivery process has them in hand: they are not sent any more. */
#include "mail/withdrawn.h"

#include <sodium.h>
#include <string.h>

void withdrawn_add(struct withdrawn *withdrawn, const char *text)
{
	unsigned char id[TOKEN_ID_BYTES];
	size_t length = 0;

	if (strlen(text) != TOKEN_ID_TEXT ||
	    sodium_hex2bin(id, sizeof(id), text, TOKEN_ID_TEXT, "-", &length, NULL) != 0 || length != sizeof(id))
		return;
	memcpy(withdrawn->id[withdrawn->count++ % WITHDRAWN_MAX], id, sizeof(id));
}

bool withdrawn_has(const struct withdrawn *withdrawn, const unsigned char id[static TOKEN_ID_BYTES])
{
	size_t count = withdrawn->count < WITHDRAWN_MAX ? withdrawn->count : WITHDRAWN_MAX;

	for (size_t i = 0; i < count; i++)
		if (memcmp(withdrawn->id[i], id, TOKEN_ID_BYTES) == 0)
			return true;
	return false;
}
