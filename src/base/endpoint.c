/* endpoint.c: "host:port" as people write it. */
#include "base/endpoint.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* RFC 1123 names, by bytes: letters, digits, hyphens, dots; underscores as some private names have them. */
static bool is_host(const char *host)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

	return host[0] != '\0' && host[0] != '-' && host[0] != '.' && host[strspn(host, allowed)] == '\0' &&
	       strstr(host, "..") == NULL;
}

static bool is_port(const char *port)
{
	return port[0] >= '1' && port[0] <= '9' && port[strspn(port, "0123456789")] == '\0' &&
	       strtol(port, NULL, 10) <= 65535;
}

/* Judges the host, which is in place. */
static bool read_host(struct endpoint *endpoint)
{
	struct in6_addr six;
	struct in_addr four;

	if (endpoint->is_ipv6) {
		if (inet_pton(AF_INET6, endpoint->host, &six) != 1)
			return false;
		endpoint->is_loopback = IN6_IS_ADDR_LOOPBACK(&six);
		return true;
	}
	endpoint->is_loopback =
	    strcmp(endpoint->host, "localhost") == 0 ||
	    (inet_pton(AF_INET, endpoint->host, &four) == 1 && ntohl(four.s_addr) >> 24 == IN_LOOPBACKNET);
	return is_host(endpoint->host);
}

enum result endpoint_parse(struct endpoint *endpoint, const char *text, size_t length)
{
	const char *colon = memrchr(text, ':', length);
	struct endpoint parsed = {.host = ""};
	size_t host_length, port_length;

	if (colon == NULL)
		return RESULT_INVALID;
	host_length = (size_t)(colon - text);
	port_length = length - host_length - 1;
	parsed.is_ipv6 = host_length > 2 && text[0] == '[' && colon[-1] == ']';
	if (parsed.is_ipv6) {
		text++;
		host_length -= 2;
	}
	if (host_length >= sizeof(parsed.host) || port_length >= sizeof(parsed.port))
		return RESULT_INVALID;
	memcpy(parsed.host, text, host_length);
	memcpy(parsed.port, colon + 1, port_length);
	if (!is_port(parsed.port) || !read_host(&parsed))
		return RESULT_INVALID;
	*endpoint = parsed;
	return RESULT_OK;
}
