/* application_file.c: the file that names the applications: read whole, or refused with all that is wrong in it. */
#include "otp/application_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"
#include "base/file.h"
#include "base/text.h"
#include "otp/application_list.h"

/* --- Members that follow a setting's rule --- */

static void read_value(struct application_reading *reading, const char *value, void *place)
{
	char name[COMPLAINT_PLACE_BYTES];

	application_list_place(reading, "", name);
	if (settings_read_value(reading->setting, name, value, place) != RESULT_OK)
		reading->is_wrong = true;
}

static void read_text(struct application_reading *reading, const struct json_t *value, void *place)
{
	const char *text = jsondoc_string(value);

	if (text == NULL)
		application_list_refuse(reading, "", "must be a text in quotes");
	else
		read_value(reading, text, place);
}

static void read_number(struct application_reading *reading, const struct json_t *value, void *place)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%.17g", jsondoc_number(value));
	if (jsondoc_type(value) != JSONDOC_NUMBER)
		application_list_refuse(reading, "", "must be a number without quotes");
	else
		read_value(reading, text, place);
}

/* --- The table --- */

static void read_public(struct application_reading *reading, const struct json_t *value, void *place)
{
	if (jsondoc_type(value) != JSONDOC_BOOLEAN)
		application_list_refuse(reading, "", "must be true or false");
	else
		*(bool *)place = jsondoc_is_true(value);
}

#define AT(member) offsetof(struct application, member)

static const struct member {
	const char *name;
	application_reader *read;
	size_t offset;
	const char *setting;
} table[] = {
    {"app_name", read_text, AT(app_name), "APP_NAME"},
    {"email_from", read_text, AT(email_from), "EMAIL_FROM"},
    {"reply_to", read_text, AT(reply_to), "EMAIL_REPLY_TO"},
    {"subject", read_text, AT(subject), "EMAIL_SUBJECT"},
    {"templates", read_text, AT(templates), "TEMPLATE_DIR"},
    {"locale", read_text, AT(locale), "LOCALE"},
    {"expire_minutes", read_number, AT(expire_minutes), "EXPIRE_MINUTES"},
    {"password_length", read_number, AT(password_length), "PASSWORD_LENGTH"},
    {"max_attempts", read_number, AT(max_attempts), "MAX_ATTEMPTS"},
    {"resend_seconds", read_number, AT(resend_seconds), "RESEND_SECONDS"},
    {"sends_per_hour", read_number, AT(sends_per_hour), "SENDS_PER_HOUR"},
    {"sends_per_day", read_number, AT(sends_per_day), "SENDS_PER_DAY"},
    {"budget_per_hour", read_number, AT(budget_per_hour), "BUDGET_PER_HOUR"},
    {"public", read_public, AT(is_public), NULL},
    {"origins", application_list_origins, AT(origins), NULL},
    {"key_hashes", application_list_keys, AT(keys), NULL},
    {"purposes", application_list_purposes, AT(purposes), NULL},
    {"domains_allow", application_list_domains, AT(domains_allow), NULL},
    {"domains_deny", application_list_domains, AT(domains_deny), NULL},
    {"test_addresses", application_list_tests, AT(tests), NULL},
};

#define MEMBERS (sizeof(table) / sizeof(table[0]))

static void visit_member(void *context, const char *name, const struct json_t *value)
{
	struct application_reading *reading = context;
	char known[512];
	struct text text;

	(void)value;
	text_init(&text, known, sizeof(known));
	for (size_t i = 0; i < MEMBERS; i++) {
		if (strcmp(name, table[i].name) == 0)
			return;
		text_printf(&text, "%s%s", i > 0 ? ", " : "", table[i].name);
	}
	reading->member = name;
	application_list_refuse(reading, "", "is unknown; there are %s", known);
}

/* --- Applications --- */

/* What the environment says of all. */
static void inherit(struct application *application, const char *name, const struct settings *settings)
{
	(void)snprintf(application->name, sizeof(application->name), "%s", name);
	application->is_default = strcmp(name, APPLICATION_DEFAULT) == 0;
	application->is_public = true;
	application->app_name = settings->app_name;
	application->subject = settings->email_subject;
	application->email_from = settings->email_from;
	application->reply_to = settings->email_reply_to;
	application->templates = settings->template_dir;
	memcpy(application->locale, settings->locale, sizeof(application->locale));
	application->expire_minutes = settings->expire_minutes;
	application->password_length = settings->password_length;
	application->max_attempts = settings->max_attempts;
	application->resend_seconds = settings->resend_seconds;
	application->sends_per_hour = settings->sends_per_hour;
	application->sends_per_day = settings->sends_per_day;
	application->budget_per_hour = settings->budget_per_hour;
}

struct file_visit {
	struct applications *set;
	const struct settings *settings;
	struct application_reading reading;
	bool has_default;
};

static void read_members(struct application_reading *reading, const struct json_t *value)
{
	struct application *application = reading->application;

	for (size_t i = 0; i < MEMBERS; i++) {
		const struct json_t *member = jsondoc_member(value, table[i].name);

		reading->member = table[i].name;
		reading->setting = table[i].setting;
		if (member != NULL)
			table[i].read(reading, member, (char *)application + table[i].offset);
	}
	jsondoc_members(value, visit_member, reading);
	application->is_budget_for_keys = jsondoc_member(value, "budget_per_hour") != NULL;
	if (jsondoc_member(value, "public") == NULL)
		application->is_public = application->keys.count == 0;
}

static void visit_application(void *context, const char *name, const struct json_t *value)
{
	struct file_visit *visit = context;
	struct application_reading *reading = &visit->reading;

	reading->application = &visit->set->application[visit->set->count++];
	reading->member = "";
	inherit(reading->application, name, visit->settings);
	visit->has_default = visit->has_default || reading->application->is_default;
	if (!slug_is(name, strlen(name)))
		application_list_refuse(reading, "",
					"the name of an application must be 1 to %u characters of a to z, 0 to 9 and "
					"\"-\"",
					SLUG_MAX);
	else if (jsondoc_type(value) != JSONDOC_OBJECT)
		application_list_refuse(reading, "", "must be an object with the members of the application");
	else
		read_members(reading, value);
}

/* --- Keys --- */

/* Is the hash that of another key, before number j of application i? Then whose? */
static const struct application *find_before(const struct applications *set, size_t i, size_t j)
{
	const unsigned char *hash = set->application[i].keys.hash[j];

	for (size_t other = 0; other <= i; other++) {
		const struct application_hashes *keys = &set->application[other].keys;

		for (size_t k = 0; k < (other == i ? j : keys->count); k++)
			if (api_key_is_same(keys->hash[k], hash))
				return &set->application[other];
	}
	return NULL;
}

static void check_keys(struct file_visit *visit)
{
	const struct applications *set = visit->set;

	visit->reading.member = "key_hashes";
	for (size_t i = 0; i < set->count; i++) {
		visit->reading.application = &set->application[i];
		for (size_t j = 0; j < set->application[i].keys.count; j++) {
			const struct application *other = find_before(set, i, j);
			char part[32];

			(void)snprintf(part, sizeof(part), "[%zu]", j);
			if (other != NULL)
				application_list_refuse(&visit->reading, part,
							"is also a key of %s: a key is for one application, remove it "
							"from the other",
							other->name);
		}
	}
}

/* --- The file --- */

static enum result read_document(struct json_t **document, const char *path)
{
	size_t length = 0;
	char *bytes = file_read(path, APPLICATION_FILE_MAX, &length);
	char reason[JSONDOC_REASON_BYTES];
	enum result result;

	if (bytes == NULL) {
		complain(path, "%s: check APPLICATIONS", strerror(errno));
		return RESULT_INVALID;
	}
	result = jsondoc_parse(document, bytes, length, reason);
	if (result != RESULT_OK)
		complain(path, "must be an object with a member for each application: %s", reason);
	free(bytes);
	return result;
}

enum result application_file_read(struct applications *set, const struct settings *settings, uint64_t today_ms)
{
	const char *path = settings->applications;
	struct file_visit visit = {.set = set, .settings = settings, .reading = {.file = path, .today_ms = today_ms}};

	if (path[0] != '\0' && read_document(&set->document, path) != RESULT_OK)
		return RESULT_INVALID;
	set->application =
	    calloc((set->document != NULL ? jsondoc_count(set->document) : 0) + 1, sizeof(set->application[0]));
	if (set->application == NULL)
		return RESULT_FAULT;
	if (set->document != NULL) {
		jsondoc_members(set->document, visit_application, &visit);
		if (!visit.reading.is_wrong)
			check_keys(&visit);
	}
	if (!visit.has_default)
		inherit(&set->application[set->count++], APPLICATION_DEFAULT, settings);
	return visit.reading.is_wrong ? RESULT_INVALID : RESULT_OK;
}
