/* locale.h: in which languages somebody wants a mail, and which of those at hand comes closest. */
#ifndef OTP_LOCALE_H
#define OTP_LOCALE_H

#include <stddef.h>

#include "base/result.h"

#define LOCALE_TAG_BYTES 36U /* RFC 5646 4.4.1 recommends room for 35 */
#define LOCALE_BYTES 112U    /* three tags, separated by commas, in order of preference */

/* Reads untrusted text: a language tag (BCP 47), also as POSIX writes it ("zh_TW.UTF-8"). RESULT_INVALID: it is none.
 */
OTP_MUST_CHECK enum result locale_read(char out[static LOCALE_BYTES], const char *text, size_t length);

/* Reads the first three languages, by weight, of an untrusted Accept-Language header (RFC 9110 12.5.4). RESULT_INVALID:
   there are none. */
OTP_MUST_CHECK enum result locale_read_header(char out[static LOCALE_BYTES], const char *header);

/* The number of the tag that comes closest to what is wanted (as read above, or NULL); count if none does. tag(context,
   i) gives them. For each wanted tag in turn (RFC 4647 3.4, lookup): itself, or with its last subtags dropped one by
   one; Chinese by the script of its region; else any other variant of the language, since that is closer than English.
 */
size_t locale_choose(const char *wanted, size_t count, const char *(*tag)(const void *context, size_t i),
		     const void *context);

#endif
