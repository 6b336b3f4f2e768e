/* date_form.c: how people of a language write a date and a time. */
#include "mail/date_form.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "mail/template.h"

#define MONTHS 12U
#define NUMBER_BYTES 12U

struct date_form {
	struct template *line;
	char *names; /* of the months, each NUL-terminated; NULL: they are numbers */
	const char *month[MONTHS];
};

/* Splits the lines below the first. false: they are not twelve names. */
static bool split_names(struct date_form *form, size_t length)
{
	char *at = form->names;

	if (!utf8_is_text(form->names, length, "\n", NULL))
		return false;
	for (size_t i = 0; i < MONTHS; i++) {
		size_t width = strcspn(at, "\n");

		if (width == 0)
			return false;
		form->month[i] = at;
		at += width;
		if (*at == '\n')
			*at++ = '\0';
	}
	return *at == '\0';
}

static bool read_names(struct date_form *form, const char *name, const char *source, size_t length)
{
	if (length == 0)
		return true;
	form->names = strndup(source, length);
	if (form->names != NULL && split_names(form, length))
		return true;
	template_complain(name, 2, "must be the months' names, twelve lines, or absent if months are numbers");
	return false;
}

struct date_form *date_form_parse(const char *name, const char *source, size_t length)
{
	struct date_form *form = calloc(1, sizeof(*form));
	const char *end = memchr(source, '\n', length);
	size_t width = end != NULL ? (size_t)(end - source) : length;
	size_t rest = end != NULL ? length - width - 1 : 0;

	if (form == NULL) {
		template_complain(name, 0, "out of memory");
		return NULL;
	}
	form->line = template_parse(TEMPLATE_OF_DATE, name, source, width);
	if (form->line != NULL && read_names(form, name, source + length - rest, rest))
		return form;
	date_form_free(form);
	return NULL;
}

void date_form_free(struct date_form *form)
{
	if (form == NULL)
		return;
	template_free(form->line);
	free(form->names);
	free(form);
}

void date_form_put(const struct date_form *form, const struct tm *utc, struct text *out)
{
	char year[NUMBER_BYTES], month[NUMBER_BYTES], day[NUMBER_BYTES], hour[NUMBER_BYTES], minute[NUMBER_BYTES];
	const char *values[TEMPLATE_VALUES] = {[TEMPLATE_YEAR] = year,
					       [TEMPLATE_MONTH] = month,
					       [TEMPLATE_DAY] = day,
					       [TEMPLATE_HOUR] = hour,
					       [TEMPLATE_MINUTE] = minute};

	if (form == NULL) {
		text_printf(out, "%04d-%02d-%02d %02d:%02d UTC", utc->tm_year + 1900, utc->tm_mon + 1, utc->tm_mday,
			    utc->tm_hour, utc->tm_min);
		return;
	}
	(void)snprintf(year, sizeof(year), "%04d", utc->tm_year + 1900);
	(void)snprintf(month, sizeof(month), "%d", utc->tm_mon + 1);
	(void)snprintf(day, sizeof(day), "%d", utc->tm_mday);
	(void)snprintf(hour, sizeof(hour), "%02d", utc->tm_hour);
	(void)snprintf(minute, sizeof(minute), "%02d", utc->tm_min);
	if (form->names != NULL)
		values[TEMPLATE_MONTH] = form->month[utc->tm_mon];
	template_fill(form->line, values, out);
}

int date_form_longest_month(const struct date_form *form)
{
	size_t longest = MONTHS - 1; /* of numbers */

	if (form != NULL && form->names != NULL)
		for (size_t i = 0; i < MONTHS; i++)
			if (strlen(form->month[i]) > strlen(form->month[longest]))
				longest = i;
	return (int)longest;
}
