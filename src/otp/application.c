/* application.c: an application that uses this service: what it may do, and what it has. */
#include "otp/application.h"

#include <string.h>

static bool holds(const struct application_texts *texts, const char *text, size_t length)
{
	for (size_t i = 0; i < texts->count; i++)
		if (strlen(texts->text[i]) == length && memcmp(texts->text[i], text, length) == 0)
			return true;
	return false;
}

bool application_allows_origin(const struct application *application, const char *origin, size_t length)
{
	return application->origins.text == NULL || holds(&application->origins, origin, length);
}

bool application_allows_purpose(const struct application *application, const char *purpose, size_t length)
{
	return application->purposes.text == NULL || holds(&application->purposes, purpose, length);
}

static bool covers(const char *pattern, const char *domain)
{
	size_t domain_length = strlen(domain);
	size_t tail_length = strlen(pattern) - 1;

	if (pattern[0] != '*')
		return strcmp(pattern, domain) == 0;
	return domain_length > tail_length && strcmp(domain + domain_length - tail_length, pattern + 1) == 0;
}

static bool covers_any(const struct application_domains *domains, const char *domain)
{
	for (size_t i = 0; i < domains->count; i++)
		if (covers(domains->name[i], domain))
			return true;
	return false;
}

bool application_allows_domain(const struct application *application, const char *domain)
{
	return (application->domains_allow.name == NULL || covers_any(&application->domains_allow, domain)) &&
	       !covers_any(&application->domains_deny, domain);
}

const char *application_test_code(const struct application *application, const char *mailbox, uint64_t now_ms)
{
	for (size_t i = 0; i < application->tests.count; i++) {
		const struct application_test *test = &application->tests.test[i];

		if (now_ms < test->until_ms && strcmp(test->mailbox, mailbox) == 0)
			return test->code;
	}
	return NULL;
}
