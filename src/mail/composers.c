/* composers.c: who makes the mails of each application. */
#include "mail/composers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"

/* Of one application. */
struct member {
	char name[SLUG_MAX + 1];
	struct texts own; /* empty if it uses the shared ones */
	struct message_composer *composer;
};

struct composers {
	struct texts shared;
	size_t count;
	struct member *member;
};

static enum result fill_in(struct member *member, const struct texts *shared, const struct application *application,
			   const struct settings *settings)
{
	enum result result = RESULT_OK;
	char subject_place[COMPLAINT_PLACE_BYTES] = "EMAIL_SUBJECT";
	struct message_settings message = {.place = application->templates,
					   .app_name = application->app_name,
					   .subject = application->subject,
					   .subject_place = subject_place,
					   .from = &application->email_from,
					   .reply_to = &application->reply_to,
					   .locale = application->locale,
					   .own = &member->own,
					   .shared = shared};

	memcpy(member->name, application->name, sizeof(member->name));
	if (application->subject != settings->email_subject)
		(void)snprintf(subject_place, sizeof(subject_place), "%s: %s.subject", settings->applications,
			       application->name);
	if (strcmp(application->templates, settings->template_dir) != 0)
		result = texts_load(&member->own, application->templates);
	return result == RESULT_OK ? message_composer_new(&member->composer, &message) : result;
}

/* Goes on after a complaint, so that one run of --check names them all. */
static enum result fill_all(struct composers *composers, const struct applications *applications,
			    const struct settings *settings)
{
	enum result worst = texts_load(&composers->shared, settings->template_dir);

	composers->count = applications_count(applications);
	composers->member = calloc(composers->count, sizeof(composers->member[0]));
	if (composers->member == NULL)
		return RESULT_FAULT;
	for (size_t i = 0; i < composers->count && composers->shared.count > 0; i++)
		if (fill_in(&composers->member[i], &composers->shared, applications_at(applications, i), settings) !=
		    RESULT_OK)
			worst = RESULT_INVALID;
	return worst;
}

enum result composers_load(struct composers **composers, const struct applications *applications,
			   const struct settings *settings)
{
	struct composers *made = calloc(1, sizeof(*made));
	enum result result = made == NULL ? RESULT_FAULT : fill_all(made, applications, settings);

	if (result == RESULT_OK)
		*composers = made;
	else
		composers_free(made);
	return result;
}

void composers_free(struct composers *composers)
{
	if (composers == NULL)
		return;
	for (size_t i = 0; composers->member != NULL && i < composers->count; i++) {
		message_composer_free(composers->member[i].composer);
		texts_free(&composers->member[i].own);
	}
	free(composers->member);
	texts_free(&composers->shared);
	free(composers);
}

const struct message_composer *composers_find(const struct composers *composers, const char *application)
{
	for (size_t i = 0; i < composers->count; i++)
		if (strcmp(composers->member[i].name, application) == 0)
			return composers->member[i].composer;
	return NULL;
}
