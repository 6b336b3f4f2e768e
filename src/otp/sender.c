/* sender.c: who a mail is from: "Name <address>" as people write it. */
#include "otp/sender.h"

#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

/* The name in front of "<...>": as it is, or, if it is a quoted string, what that says. Spaces around it go.
   RESULT_LIMITED: it is too long. */
static enum result read_name(char name[static SENDER_NAME_MAX + 1], const char *text, size_t length)
{
	size_t used = 0;
	bool is_quoted;

	while (length > 0 && text[length - 1] == ' ')
		length--;
	for (; length > 0 && *text == ' '; length--)
		text++;
	is_quoted = length >= 2 && text[0] == '"' && text[length - 1] == '"';
	if (is_quoted) {
		text++;
		length -= 2;
	}
	for (size_t i = 0; i < length; i++) {
		if (is_quoted && text[i] == '\\' && i + 1 < length)
			i++;
		if (!is_quoted && text[i] == '<')
			return RESULT_INVALID;
		if (used == SENDER_NAME_MAX)
			return RESULT_LIMITED;
		name[used++] = text[i];
	}
	name[used] = '\0';
	return RESULT_OK;
}

enum result sender_parse(struct sender *sender, const char *text, const char **reason)
{
	size_t length = strlen(text);
	const char *open = strrchr(text, '<');
	const char *mailbox = text;
	enum result name = RESULT_OK;
	struct sender parsed = {.name = ""};
	struct address address;
	const char *unused;

	*reason = "must be UTF-8 text without control characters";
	if (!utf8_is_text(text, length, "", NULL))
		return RESULT_INVALID;
	if (open != NULL && text[length - 1] == '>') {
		name = read_name(parsed.name, text, (size_t)(open - text));
		mailbox = open + 1;
		length = (size_t)(text + length - 1 - mailbox);
	}
	*reason = name == RESULT_LIMITED
		      ? "the name must be at most 200 bytes long"
		      : "must be \"address\" or \"Name <address>\", such as \"Example <no-reply@example.com>\"";
	if (name != RESULT_OK || address_parse(&address, mailbox, length, &unused) != RESULT_OK)
		return RESULT_INVALID;
	memcpy(parsed.address, address.recipient, sizeof(parsed.address));
	*sender = parsed;
	return RESULT_OK;
}
