/* smtp_reply.c: what a mail relay answered, kept as clean text. */
#include "mail/smtp_reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Line ends and runs of blanks become one space, other bytes that are not printable ASCII a '?'. */
static void append_clean(struct smtp_reply *reply, size_t used, const char *text)
{
	for (; *text != '\0' && used < sizeof(reply->text) - 1; text++) {
		bool blank = *text == ' ' || *text == '\r' || *text == '\n' || *text == '\t';

		if (blank && (used == 0 || reply->text[used - 1] == ' '))
			continue;
		reply->text[used++] = (char)(blank ? ' ' : *text > 0x20 && *text < 0x7F ? *text : '?');
	}
	while (used > 0 && reply->text[used - 1] == ' ')
		used--;
	reply->text[used] = '\0';
}

static bool read_enhanced(int found[static 3], const char *text)
{
	char *end = NULL;

	for (size_t i = 0; i < 3; i++) {
		if (*text < '0' || *text > '9')
			return false;
		found[i] = (int)strtol(text, &end, 10);
		if (end - text > 3 || (i < 2 && *end != '.'))
			return false;
		text = end + 1;
	}
	return true;
}

/* The enhanced code that a text begins with, or names in brackets. */
static void find_enhanced(int enhanced[static 3], const char *text)
{
	const char *place = strstr(text, "(#");
	int found[3];

	if (read_enhanced(found, text) || (place != NULL && read_enhanced(found, place + 2)))
		memcpy(enhanced, found, sizeof(found));
}

void smtp_reply_set(struct smtp_reply *reply, int code, const int enhanced[static 3], const char *text)
{
	char head[64];

	if (enhanced[0] != 0)
		(void)snprintf(head, sizeof(head), "%d %d.%d.%d ", code, enhanced[0], enhanced[1], enhanced[2]);
	else
		(void)snprintf(head, sizeof(head), "%d ", code);
	reply->code = code;
	memcpy(reply->enhanced, enhanced, sizeof(reply->enhanced));
	if (enhanced[0] == 0)
		find_enhanced(reply->enhanced, text);
	memcpy(reply->text, head, strlen(head));
	append_clean(reply, strlen(head), text);
}

void smtp_reply_say(struct smtp_reply *reply, const char *text)
{
	reply->code = 0;
	memset(reply->enhanced, 0, sizeof(reply->enhanced));
	append_clean(reply, 0, text);
}

void smtp_reply_mask(struct smtp_reply *reply, const char *secret)
{
	size_t length = strlen(secret);
	size_t used = strlen(reply->text);
	bool was_cut = used == sizeof(reply->text) - 1;
	char *found = reply->text;

	while (length > 0 && (found = strcasestr(found, secret)) != NULL)
		memset(found, '*', length);
	for (size_t part = length; was_cut && part > 0; part--)
		if (part < used && strncasecmp(reply->text + used - part, secret, part) == 0)
			memset(reply->text + used - part, '*', part);
}

bool smtp_reply_is_positive(const struct smtp_reply *reply)
{
	return reply->code >= 200 && reply->code <= 299;
}
