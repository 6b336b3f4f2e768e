/* origin.c: where a web page comes from, as browsers write it in the header Origin (RFC 6454). */
#include "otp/origin.h"

#include <stdlib.h>
#include <string.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

static bool is_implied(const char *scheme, long port)
{
	return (port == 443 && strncmp(scheme, "https:", 6) == 0) || (port == 80 && strncmp(scheme, "http:", 5) == 0);
}

static bool is_port(const char *text, const char *scheme)
{
	size_t length = strspn(text, DIGITS);
	long port = length > 0 && length <= 5 && text[0] != '0' ? strtol(text, NULL, 10) : 0;

	return text[length] == '\0' && port >= 1 && port <= 65535 && !is_implied(scheme, port);
}

/* The length of a name or of an address in brackets; 0: neither. */
static size_t host_length(const char *text)
{
	size_t length;

	if (text[0] != '[')
		return text[0] == '.' || text[0] == '-' ? 0 : strspn(text, LETTERS DIGITS ".-");
	length = 1 + strspn(text + 1, "abcdef" DIGITS ":.");
	return length > 1 && text[length] == ']' ? length + 1 : 0;
}

bool origin_is(const char *text)
{
	size_t scheme = strspn(text, LETTERS DIGITS "+-.");
	const char *host = text + scheme + 3;
	size_t length;

	if (text[0] < 'a' || text[0] > 'z' || strncmp(text + scheme, "://", 3) != 0)
		return false;
	length = host_length(host);
	return length > 0 && (host[length] == '\0' || (host[length] == ':' && is_port(host + length + 1, text)));
}
