/* fuzz_reply.c: whatever a relay says is kept as one short line of printable ASCII, without what it must not tell. */
#include <strings.h>

#include "fuzz.h"
#include "mail/smtp_reply.h"

static void check_clean(const struct smtp_reply *reply)
{
	FUZZ_ASSERT(memchr(reply->text, '\0', sizeof(reply->text)) != NULL);
	for (const char *at = reply->text; *at != '\0'; at++)
		FUZZ_ASSERT(*at >= ' ' && *at <= '~');
}

/* Neither the secret nor, where the text was cut, more than a letter of its beginning. */
static void check_masked(const struct smtp_reply *reply, const char *secret)
{
	size_t length = strlen(reply->text);
	FUZZ_ASSERT(strcasestr(reply->text, secret) == NULL);
	if (length < sizeof(reply->text) - 1)
		return;
	for (size_t part = 1; part < strlen(secret); part++)
		FUZZ_ASSERT(strncasecmp(reply->text + length - part, secret, part) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	int code = fuzz_byte(&input) * 4 + fuzz_byte(&input) % 4;
	int enhanced[3] = {fuzz_byte(&input) % 8, fuzz_byte(&input), fuzz_byte(&input)};
	struct smtp_reply reply, own;
	char secret[64], text[1024], head[8];
	(void)fuzz_text(&input, '*', secret, sizeof(secret)); /* so that stars are what hides it */
	(void)fuzz_text(&input, '\0', text, sizeof(text));
	smtp_reply_set(&reply, code, enhanced, text);
	smtp_reply_say(&own, text);
	check_clean(&reply);
	check_clean(&own);
	(void)snprintf(head, sizeof(head), "%d ", code);
	FUZZ_ASSERT(strncmp(reply.text, head, strlen(head) - 1) == 0);
	FUZZ_ASSERT(reply.code == code && own.code == 0);
	FUZZ_ASSERT(smtp_reply_is_positive(&reply) == (code / 100 == 2));
	for (const char *at = secret; *at != '\0'; at++)
		if (*at <= ' ' || *at > '~') /* no code and no address */
			return 0;
	if (secret[0] == '\0')
		return 0;
	smtp_reply_mask(&reply, secret);
	check_clean(&reply);
	check_masked(&reply, secret);
	return 0;
}
