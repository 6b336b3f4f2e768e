/* application_list.c: the members of an application in its file that hold several values each. */
#include "otp/application_list.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "otp/origin.h"

#define DAY_MS 86400000U
#define PART_BYTES (2 * ADDRESS_MAX + 16U)

/* --- Complaints --- */

void application_list_place(const struct application_reading *reading, const char *part,
			    char place[static COMPLAINT_PLACE_BYTES])
{
	(void)snprintf(place, COMPLAINT_PLACE_BYTES, "%s: %s%s%s%s", reading->file, reading->application->name,
		       reading->member[0] != '\0' ? "." : "", reading->member, part);
}

void application_list_refuse(struct application_reading *reading, const char *part, const char *fix, ...)
{
	char place[COMPLAINT_PLACE_BYTES];
	char text[512];
	va_list arguments;

	reading->is_wrong = true;
	application_list_place(reading, part, place);
	va_start(arguments, fix);
	(void)vsnprintf(text, sizeof(text), fix, arguments);
	va_end(arguments);
	complain(place, "%s", text);
}

/* --- Lists of texts --- */

/* Room for as many things of that size as the value has members or elements, zeroed, and not NULL if there are none;
   NULL after a complaint. */
static void *make_room(struct application_reading *reading, const struct json_t *value, size_t size)
{
	void *room = calloc(jsondoc_count(value) + 1, size);

	if (room == NULL)
		application_list_refuse(reading, "", "memory ran out");
	return room;
}

/* Takes the text as number i; false: it is not as it must be. */
typedef bool taker(void *place, size_t i, const char *text);

/* fix: what each text must be. */
static void take_texts(struct application_reading *reading, const struct json_t *list, taker *take, void *place,
		       const char *fix)
{
	for (size_t i = 0; i < jsondoc_count(list); i++) {
		const char *text = jsondoc_string(jsondoc_element(list, i));
		char part[32];

		(void)snprintf(part, sizeof(part), "[%zu]", i);
		if (text == NULL || !take(place, i, text))
			application_list_refuse(reading, part, "%s", fix);
	}
}

static bool is_list(struct application_reading *reading, const struct json_t *value, size_t min)
{
	bool is_right = jsondoc_type(value) == JSONDOC_ARRAY && jsondoc_count(value) >= min;

	if (!is_right)
		application_list_refuse(reading, "", "must be a list in brackets%s",
					min > 0 ? " that is not empty: leave it out for no such rule" : "");
	return is_right;
}

static bool take_origin(void *place, size_t i, const char *text)
{
	struct application_texts *origins = place;

	origins->text[i] = text;
	return origin_is(text);
}

void application_list_origins(struct application_reading *reading, const struct json_t *value, void *place)
{
	struct application_texts *origins = place;

	if (!is_list(reading, value, 0) || (origins->text = make_room(reading, value, sizeof(char *))) == NULL)
		return;
	origins->count = jsondoc_count(value);
	take_texts(reading, value, take_origin, origins,
		   "must be an origin as browsers send it, such as \"https://shop.example\" or "
		   "\"http://localhost:3000\": in small letters, without a path, a slash at its end or a usual port");
}

static bool take_slug(void *place, size_t i, const char *text)
{
	struct application_texts *purposes = place;

	purposes->text[i] = text;
	return slug_is(text, strlen(text));
}

void application_list_purposes(struct application_reading *reading, const struct json_t *value, void *place)
{
	struct application_texts *purposes = place;

	if (!is_list(reading, value, 1) || (purposes->text = make_room(reading, value, sizeof(char *))) == NULL)
		return;
	purposes->count = jsondoc_count(value);
	take_texts(reading, value, take_slug, purposes,
		   "must be a purpose, such as \"sign-in\": 1 to 32 characters of a to z, 0 to 9 and \"-\"");
}

/* --- Keys --- */

static bool take_hash(void *place, size_t i, const char *text)
{
	struct application_hashes *keys = place;

	return api_key_hash_read(keys->hash[i], text, strlen(text)) == RESULT_OK;
}

void application_list_keys(struct application_reading *reading, const struct json_t *value, void *place)
{
	struct application_hashes *keys = place;

	if (!is_list(reading, value, 0) || (keys->hash = make_room(reading, value, API_KEY_HASH_BYTES)) == NULL)
		return;
	keys->count = jsondoc_count(value);
	take_texts(reading, value, take_hash, keys,
		   "must be the hash that otp-keygen --api-key printed: 64 digits 0 to 9 and a to f");
}

/* --- Domains --- */

/* A domain is what address_parse takes for one; of "*.example.com", a name below it. */
static bool take_domain(void *place, size_t i, const char *text)
{
	struct application_domains *domains = place;
	bool is_below = strncmp(text, "*.", 2) == 0;
	char example[2 * ADDRESS_MAX];
	struct address address;
	const char *unused, *domain;
	int length = snprintf(example, sizeof(example), "a@%s%s", is_below ? "a" : "", text + is_below);

	if (length < 0 || (size_t)length >= sizeof(example) ||
	    address_parse(&address, example, (size_t)length, &unused) != RESULT_OK)
		return false;
	domain = strchr(address.recipient, '@') + 1;
	(void)snprintf(domains->name[i], sizeof(domains->name[i]), "%s%s", is_below ? "*" : "", domain + is_below);
	return true;
}

void application_list_domains(struct application_reading *reading, const struct json_t *value, void *place)
{
	struct application_domains *domains = place;

	if (!is_list(reading, value, 1) ||
	    (domains->name = make_room(reading, value, sizeof(domains->name[0]))) == NULL)
		return;
	domains->count = jsondoc_count(value);
	take_texts(reading, value, take_domain, domains,
		   "must be a domain, such as \"example.com\", or \"*.example.com\" for all below it");
}

/* --- Test addresses --- */

/* "2027-01-31": the end of that day. */
static bool read_date(const char *text, uint64_t *end_ms)
{
	static const char form[] = "dddd-dd-dd";
	struct tm given, real;
	time_t seconds;

	for (size_t i = 0; i < sizeof(form) - 1; i++)
		if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
			return false;
	given = (struct tm){.tm_year = (int)strtol(text, NULL, 10) - 1900,
			    .tm_mon = (int)strtol(text + 5, NULL, 10) - 1,
			    .tm_mday = (int)strtol(text + 8, NULL, 10)};
	real = given;
	seconds = timegm(&real); /* the 31st of April becomes the 1st of May */
	*end_ms = (uint64_t)seconds * 1000 + DAY_MS;
	return text[sizeof(form) - 1] == '\0' && seconds >= 0 && real.tm_mon == given.tm_mon &&
	       real.tm_mday == given.tm_mday;
}

static bool read_test_code(char code[static CODE_MAX + 1], const char *text, size_t length)
{
	size_t digits = text != NULL ? strspn(text, "0123456789") : 0;

	if (text == NULL || text[digits] != '\0' || digits < CODE_MIN || digits > CODE_MAX ||
	    (length != 0 && digits != length))
		return false;
	memcpy(code, text, digits + 1);
	return true;
}

static bool is_listed(const struct application_tests *tests, const char *mailbox)
{
	for (size_t i = 0; i < tests->count; i++)
		if (strcmp(tests->test[i].mailbox, mailbox) == 0)
			return true;
	return false;
}

/* Complains of what is wrong with an entry, or fills test. length: of a code; 0: this program does not know it. */
static bool read_test(struct application_reading *reading, const char *part, const struct json_t *entry,
		      struct application_test *test)
{
	size_t length = (size_t)reading->application->password_length;
	size_t unused;
	const char *until = jsondoc_text(entry, "until", &unused);

	if (!read_test_code(test->code, jsondoc_text(entry, "code", &unused), length))
		application_list_refuse(reading, part, "must have a member \"code\": a text of %zu%s digits",
					length != 0 ? length : CODE_MIN, length != 0 ? "" : " to 12");
	else if (until == NULL || !read_date(until, &test->until_ms))
		application_list_refuse(reading, part,
					"must have a member \"until\": the last day (UTC) of its code, such as "
					"\"2027-01-31\"");
	else if (test->until_ms <= reading->today_ms)
		application_list_refuse(reading, part, "ended on %s: remove it, or give it a later day", until);
	else if (jsondoc_count(entry) != 2)
		application_list_refuse(reading, part, "must have no members but \"code\" and \"until\"");
	else
		return true;
	return false;
}

struct test_visit {
	struct application_reading *reading;
	struct application_tests *tests;
};

static void visit_test(void *context, const char *name, const struct json_t *entry)
{
	struct test_visit *visit = context;
	struct application_tests *tests = visit->tests;
	struct application_test test = {.mailbox = ""};
	struct address address;
	const char *reason = NULL;
	char part[PART_BYTES];

	(void)snprintf(part, sizeof(part), "[\"%s\"]", name);
	if (address_parse(&address, name, strlen(name), &reason) != RESULT_OK) {
		application_list_refuse(visit->reading, part, "must be an email address: %s", reason);
		return;
	}
	if (is_listed(tests, address.mailbox))
		application_list_refuse(visit->reading, part, "is the mailbox of another entry: remove one");
	if (!read_test(visit->reading, part, entry, &test))
		return;
	memcpy(test.mailbox, address.mailbox, sizeof(test.mailbox));
	tests->test[tests->count++] = test;
}

void application_list_tests(struct application_reading *reading, const struct json_t *value, void *place)
{
	struct application_tests *tests = place;
	struct test_visit visit = {reading, tests};

	if (jsondoc_type(value) != JSONDOC_OBJECT)
		application_list_refuse(reading, "", "must be an object with an entry for each address");
	else if ((tests->test = make_room(reading, value, sizeof(tests->test[0]))) != NULL)
		jsondoc_members(value, visit_test, &visit);
}
