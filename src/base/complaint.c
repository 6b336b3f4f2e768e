/* complaint.c: what is wrong with something that a person wrote, a setting or a file, in one form with the fix. */
#include "base/complaint.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/log.h"

static const char *complaining_program = "otp";
static bool is_running;

void complaint_start(const char *program)
{
	complaining_program = program;
	is_running = false;
}

void complaint_to_log(void)
{
	is_running = true;
}

/* One line, whatever bytes it holds: a terminal obeys control characters. */
static void make_printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7E)
			*text = '?';
}

void complain(const char *place, const char *fix, ...)
{
	char shown[COMPLAINT_PLACE_BYTES];
	char text[1024];
	va_list arguments;

	(void)snprintf(shown, sizeof(shown), "%s", place);
	va_start(arguments, fix);
	(void)vsnprintf(text, sizeof(text), fix, arguments);
	va_end(arguments);
	make_printable(shown);
	make_printable(text);
	if (is_running)
		log_event(LOG_ERROR, "configuration_refused", LOG_TEXT("place", shown), LOG_TEXT("reason", text));
	else
		(void)fprintf(stderr, "%s: %s: %s\n", complaining_program, shown, text);
}
