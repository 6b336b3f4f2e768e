/* endpoint.h: "host:port" as people write it. */
#ifndef OTP_ENDPOINT_H
#define OTP_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

struct endpoint {
	char host[254]; /* a name, an IPv4 address, or an IPv6 address without its brackets */
	char port[6];   /* 1 to 65535, in digits */
	bool is_ipv6;
	bool is_loopback; /* localhost, 127.0.0.0/8 or ::1 */
};

/* Parses length bytes of "host:port" or "[IPv6]:port"; RESULT_INVALID if it is neither. */
OTP_MUST_CHECK enum result endpoint_parse(struct endpoint *endpoint, const char *text, size_t length);

#endif
