/* text.c: text that grows in a fixed buffer. */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void text_init(struct text *text, char *bytes, size_t size)
{
	*text = (struct text){.bytes = bytes, .size = size};
	bytes[0] = '\0';
}

void text_put_bytes(struct text *text, const char *bytes, size_t count)
{
	if (text->is_full || count >= text->size - text->length) {
		text->is_full = true;
		return;
	}
	memcpy(text->bytes + text->length, bytes, count);
	text->length += count;
	text->bytes[text->length] = '\0';
}

void text_put(struct text *text, const char *string)
{
	text_put_bytes(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
	size_t room = text->is_full ? 0 : text->size - text->length;
	va_list arguments;
	int length;

	if (room == 0)
		return;
	va_start(arguments, format);
	length = vsnprintf(text->bytes + text->length, room, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length >= room) {
		text_cut(text, text->length);
		text->is_full = true;
	} else {
		text->length += (size_t)length;
	}
}

void text_cut(struct text *text, size_t length)
{
	text->length = length;
	text->bytes[length] = '\0';
	text->is_full = false;
}
