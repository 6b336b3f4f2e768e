/* origin.h: where a web page comes from, as browsers write it in the header Origin (RFC 6454). */
#ifndef OTP_ORIGIN_H
#define OTP_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

/* Is text an origin to the byte as a browser sends it: scheme://host or scheme://host:port, in small letters, the host
   in ASCII form, no port that the scheme implies, nothing behind it? Otherwise no request would ever match it. */
bool origin_is(const char *text);

#endif
