/* applications.h: the applications that use this service: loaded, found by name or key, loaded anew. */
#ifndef OTP_APPLICATIONS_H
#define OTP_APPLICATIONS_H

#include "base/result.h"
#include "otp/application.h"
#include "otp/settings.h"

struct applications;

/* Reads the file that settings name; without one there is only what the settings describe. What is wrong in the file
   was complained of, with the fix, on RESULT_INVALID. today_ms: a test address whose time is over by then is refused;
   0: it is ignored, as at run time, since no program may fail to start because a day has passed. jsondoc_start goes
   before. The set points into settings. */
OTP_MUST_CHECK enum result applications_load(struct applications **set, const struct settings *settings,
					     uint64_t today_ms);
void applications_free(struct applications *set);

/* Loads anew. RESULT_OK: the former set is freed, and whatever points into it is void; otherwise it stays in force. */
OTP_MUST_CHECK enum result applications_reload(struct applications **set, const struct settings *settings);

size_t applications_count(const struct applications *set);
const struct application *applications_at(const struct applications *set, size_t i);
const struct application *applications_default(const struct applications *set);

/* By untrusted text; NULL: there is none of that name. */
const struct application *applications_find(const struct applications *set, const char *name, size_t length);

/* By a key's hash, in a time that says nothing of the hashes; NULL: nobody's. */
const struct application *applications_find_key(const struct applications *set,
						const unsigned char hash[static API_KEY_HASH_BYTES]);

#endif
