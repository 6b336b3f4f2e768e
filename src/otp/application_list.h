/* application_list.h: the members of an application in its file that hold several values each. */
#ifndef OTP_APPLICATION_LIST_H
#define OTP_APPLICATION_LIST_H

#include "base/complaint.h"
#include "base/jsondoc.h"
#include "otp/application.h"

/* A member that is being read. */
struct application_reading {
	const char *file;
	struct application *application; /* named, and with all members that were read before */
	const char *member;              /* its name; "": the application itself */
	const char *setting;             /* whose rule it follows; NULL: none */
	uint64_t today_ms;               /* as in applications_load */
	bool is_wrong;                   /* set by a complaint, and kept */
};

/* Where it stands, as complaints show it. part: of the member, such as "[0]". */
void application_list_place(const struct application_reading *reading, const char *part,
			    char place[static COMPLAINT_PLACE_BYTES]);
__attribute__((format(printf, 3, 4))) void application_list_refuse(struct application_reading *reading,
								   const char *part, const char *fix, ...);

/* Reads the value into the member's place in the application, which is zeroed, or complains. */
typedef void application_reader(struct application_reading *reading, const struct json_t *value, void *place);

application_reader application_list_origins, application_list_purposes; /* struct application_texts */
application_reader application_list_keys;                               /* struct application_hashes */
application_reader application_list_domains;                            /* struct application_domains */
application_reader application_list_tests; /* struct application_tests; after password_length */

#endif
