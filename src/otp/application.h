/* application.h: an application that uses this service: what it may do, and what it has. */
#ifndef OTP_APPLICATION_H
#define OTP_APPLICATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "otp/address.h"
#include "otp/api_key.h"
#include "otp/code.h"
#include "otp/locale.h"
#include "otp/sender.h"
#include "otp/slug.h"

/* The name of the one that a call without a key gets that names none. It is always there: what the file does not say of
   it, the environment does. */
#define APPLICATION_DEFAULT "default"

struct application_texts {
	size_t count;
	const char **text; /* NULL: the file does not say, so anything goes */
};

struct application_hashes {
	size_t count;
	unsigned char (*hash)[API_KEY_HASH_BYTES];
};

/* Lower case, A-labels; "*.example.com" stands for what is below example.com. */
struct application_domains {
	size_t count;
	char (*name)[ADDRESS_MAX + 1]; /* NULL: the file does not say */
};

/* Gets no mail, and always this code, before that time. */
struct application_test {
	char mailbox[ADDRESS_MAX + 1]; /* as address_parse gives it */
	char code[CODE_MAX + 1];
	uint64_t until_ms; /* since 1970 */
};

struct application_tests {
	size_t count;
	struct application_test *test;
};

/* The terms of one. Numbers and texts are as in struct settings, of which a program has its own alone. */
struct application {
	char name[SLUG_MAX + 1];
	bool is_default;
	bool is_public; /* callers without a key may use it */
	const char *app_name;
	const char *subject;
	struct sender email_from;
	struct sender reply_to; /* address "": none */
	const char *templates;
	char locale[LOCALE_BYTES]; /* "": none */
	int expire_minutes;
	int password_length;
	int max_attempts;
	int resend_seconds;
	int sends_per_hour;
	int sends_per_day;
	int budget_per_hour;     /* mails of all its callers; 0: no limit */
	bool is_budget_for_keys; /* else only callers without a key take from it */
	struct application_texts origins;
	struct application_texts purposes;
	struct application_hashes keys;
	struct application_domains domains_allow, domains_deny;
	struct application_tests tests;
};

/* May a browser's page of that origin use it without a key? */
bool application_allows_origin(const struct application *application, const char *origin, size_t length);

/* NULL and 0: the call names no purpose, which where purposes are listed is none of them. */
bool application_allows_purpose(const struct application *application, const char *purpose, size_t length);

/* domain: of a recipient or mailbox of address_parse. */
bool application_allows_domain(const struct application *application, const char *domain);

/* The fixed code of a test address; NULL: it is none, or no longer. */
const char *application_test_code(const struct application *application, const char *mailbox, uint64_t now_ms);

#endif
