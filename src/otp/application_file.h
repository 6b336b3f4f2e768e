/* application_file.h: the file that names the applications: read whole, or refused with all that is wrong in it. */
#ifndef OTP_APPLICATION_FILE_H
#define OTP_APPLICATION_FILE_H

#include "base/jsondoc.h"
#include "otp/application.h"
#include "otp/settings.h"

#define APPLICATION_FILE_MAX 1048576U /* bytes */

/* In the order of the file; if that has no default one, it comes last. */
struct applications {
	size_t count;
	struct application *application;
	struct json_t *document; /* texts point into it; NULL: there is no file */
};

/* As applications_load, into a zeroed set, which the caller frees in any case. */
OTP_MUST_CHECK enum result application_file_read(struct applications *set, const struct settings *settings,
						 uint64_t today_ms);

#endif
