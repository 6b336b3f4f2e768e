/* fuzz_address.c: A9, A10: whatever text is accepted as an address, what is answered, mailed and counted is one
 * mailbox. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "otp/address.h"

static void check_words(const char *text)
{
	for (; *text != '\0'; text++)
		FUZZ_ASSERT((unsigned char)*text > ' ' && *text != 0x7F);
}

/* To parse a spelling again gives the same mailbox. */
static void check_again(const struct address *address, const char *spelling)
{
	const char *reason = NULL;
	struct address again;
	FUZZ_ASSERT(address_parse(&again, spelling, strlen(spelling), &reason) == RESULT_OK);
	FUZZ_ASSERT(strcmp(again.given, spelling) == 0);
	FUZZ_ASSERT(strcmp(again.recipient, address->recipient) == 0);
	FUZZ_ASSERT(strcmp(again.mailbox, address->mailbox) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *reason = NULL;
	struct address address;
	if (address_parse(&address, (const char *)data, size, &reason) != RESULT_OK)
		return 0;
	check_words(address.given);
	check_words(address.recipient);
	check_words(address.mailbox);
	FUZZ_ASSERT(utf8_is_valid(address.given, strlen(address.given)));
	/* The given text is what was sent, but for what surrounds it. */
	FUZZ_ASSERT(memmem(data, size, address.given, strlen(address.given)) != NULL);
	FUZZ_ASSERT(strchr(address.recipient, '@') == strrchr(address.recipient, '@'));
	FUZZ_ASSERT(address_is_recipient(address.recipient));
	check_again(&address, address.given);
	check_again(&address, address.recipient);
	return 0;
}
