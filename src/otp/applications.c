/* applications.c: the applications that use this service: loaded, found by name or key, loaded anew. */
#include "otp/applications.h"

#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"
#include "otp/application_file.h"

enum result applications_load(struct applications **set, const struct settings *settings, uint64_t today_ms)
{
	struct applications *found = calloc(1, sizeof(*found));
	enum result result = RESULT_FAULT;

	if (found != NULL)
		result = application_file_read(found, settings, today_ms);
	if (result == RESULT_FAULT)
		complain("APPLICATIONS", "memory ran out");
	if (result == RESULT_OK)
		*set = found;
	else
		applications_free(found);
	return result;
}

enum result applications_reload(struct applications **set, const struct settings *settings)
{
	struct applications *before = *set;
	enum result result = applications_load(set, settings, 0);

	if (result == RESULT_OK)
		applications_free(before);
	return result;
}

void applications_free(struct applications *set)
{
	if (set == NULL)
		return;
	for (size_t i = 0; i < set->count; i++) {
		free(set->application[i].origins.text);
		free(set->application[i].purposes.text);
		free(set->application[i].keys.hash);
		free(set->application[i].domains_allow.name);
		free(set->application[i].domains_deny.name);
		free(set->application[i].tests.test);
	}
	free(set->application);
	jsondoc_free(set->document);
	free(set);
}

size_t applications_count(const struct applications *set)
{
	return set->count;
}

const struct application *applications_at(const struct applications *set, size_t i)
{
	return &set->application[i];
}

const struct application *applications_default(const struct applications *set)
{
	return applications_find(set, APPLICATION_DEFAULT, strlen(APPLICATION_DEFAULT));
}

const struct application *applications_find(const struct applications *set, const char *name, size_t length)
{
	for (size_t i = 0; i < set->count; i++)
		if (strlen(set->application[i].name) == length && memcmp(set->application[i].name, name, length) == 0)
			return &set->application[i];
	return NULL;
}

const struct application *applications_find_key(const struct applications *set,
						const unsigned char hash[static API_KEY_HASH_BYTES])
{
	const struct application *found = NULL;

	/* All are looked at, whichever it is. */
	for (size_t i = 0; i < set->count; i++)
		for (size_t j = 0; j < set->application[i].keys.count; j++)
			if (api_key_is_same(set->application[i].keys.hash[j], hash))
				found = &set->application[i];
	return found;
}
