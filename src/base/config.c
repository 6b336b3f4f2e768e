/* config.c: settings in environment variables: one table drives reading, --help and the checks of the documents. */
#include "base/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"
#include "base/utf8.h"

#ifndef PACKAGE_VERSION
#error "the build must define PACKAGE_VERSION"
#endif

#define SHOWN_BYTES 80 /* of a wrong value in a complaint */

/* One reading under way. */
struct config_reading {
	bool is_wrong;
};

/* --- Complaints --- */

void config_refuse(struct config_reading *reading, const struct config_setting *setting, const char *value,
		   const char *fix, ...)
{
	bool is_shown = value[0] != '\0' && setting->read != config_secret;
	bool is_long = strlen(value) > SHOWN_BYTES;
	char place[COMPLAINT_PLACE_BYTES];
	char text[512];
	va_list arguments;

	reading->is_wrong = true;
	(void)snprintf(place, sizeof(place), "%s%s%.*s%s", setting->name, is_shown ? "=" : "",
		       is_shown ? SHOWN_BYTES : 0, value, is_shown && is_long ? "..." : "");
	va_start(arguments, fix);
	(void)vsnprintf(text, sizeof(text), fix, arguments);
	va_end(arguments);
	complain(place, "%s", text);
}

/* --- Readers --- */

void config_number(struct config_reading *reading, const struct config_setting *setting, const char *value, void *place)
{
	bool is_digits = value[strspn(value, "0123456789")] == '\0';
	long number = is_digits && strlen(value) <= 9 ? strtol(value, NULL, 10) : -1;

	if (number < setting->min || number > setting->max)
		config_refuse(reading, setting, value, "must be a whole number from %ld to %ld", setting->min,
			      setting->max);
	else
		*(int *)place = (int)number;
}

void config_text(struct config_reading *reading, const struct config_setting *setting, const char *value, void *place)
{
	if (strlen(value) > (size_t)setting->max)
		config_refuse(reading, setting, value, "must be at most %ld bytes long", setting->max);
	else if (!utf8_is_text(value, strlen(value), "", NULL))
		config_refuse(reading, setting, value, "must be UTF-8 text without control characters");
	else
		*(const char **)place = value;
}

/* A reader of its own, by which complaints know what not to show. */
void config_secret(struct config_reading *reading, const struct config_setting *setting, const char *value, void *place)
{
	config_text(reading, setting, value, place);
}

int config_choice(struct config_reading *reading, const struct config_setting *setting, const char *value,
		  const char *const names[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(value, names[i]) == 0)
			return (int)i;
	config_refuse(reading, setting, value, "must be %s", setting->meaning);
	return -1;
}

/* --- Reading --- */

const struct config_setting *config_find(const struct config_program *program, const char *name)
{
	for (size_t i = 0; i < program->count; i++)
		if (strcmp(program->settings[i].name, name) == 0)
			return &program->settings[i];
	/* A misspelt name in our own source: no program may start with it. */
	(void)fprintf(stderr, "%s: no setting %s\n", program->name, name);
	abort();
}

static void read_setting(struct config_reading *reading, const struct config_setting *setting, void *config)
{
	const char *value = getenv(setting->name);
	void *place = (char *)config + setting->offset;

	/* Compose and systemd files pass what is not set as an empty value. */
	if (value == NULL || value[0] == '\0')
		value = setting->initial;
	if (value == NULL)
		config_refuse(reading, setting, "", "is not set; it must be the %s", setting->meaning);
	else
		setting->read(reading, setting, value, place);
}

enum result config_read(const struct config_program *program, void *config)
{
	struct config_reading reading = {.is_wrong = false};

	for (size_t i = 0; i < program->count; i++)
		if ((program->settings[i].programs & program->bit) != 0)
			read_setting(&reading, &program->settings[i], config);
	if (program->check != NULL && !reading.is_wrong)
		program->check(&reading, program, config);
	return reading.is_wrong ? RESULT_INVALID : RESULT_OK;
}

enum result config_read_value(const struct config_setting *setting, const char *name, const char *value, void *place)
{
	struct config_reading reading = {.is_wrong = false};
	struct config_setting renamed = *setting;

	renamed.name = name;
	if (value[0] == '\0' && setting->min > 0)
		config_refuse(&reading, &renamed, value, "must not be empty");
	else
		setting->read(&reading, &renamed, value, place);
	return reading.is_wrong ? RESULT_INVALID : RESULT_OK;
}

/* --- Arguments --- */

static void print_usage(FILE *out, const struct config_program *program)
{
	(void)fprintf(out, "Usage: %s [--check | %s%s--help | --version]\n", program->name,
		      program->option != NULL ? program->option : "", program->option != NULL ? " [address] | " : "");
}

static void print_setting(const struct config_setting *setting)
{
	const char *initial = setting->initial == NULL ? "(required)" : setting->initial;
	char range[48] = "";

	if (setting->read == config_number)
		(void)snprintf(range, sizeof(range), " (%ld to %ld)", setting->min, setting->max);
	(void)printf("  %-20s  %-22s  %s%s\n", setting->name, initial[0] == '\0' ? "(empty)" : initial,
		     setting->meaning, range);
}

static void print_help(const struct config_program *program)
{
	(void)printf("%s: %s.\n\n", program->name, program->purpose);
	print_usage(stdout, program);
	if (program->option != NULL)
		(void)printf("  %-9s  %s\n", program->option, program->option_meaning);
	(void)printf("  --check    validate the settings, keys and files, without any side effect\n"
		     "  --help     print this text\n"
		     "  --version  print the version\n\n"
		     "Settings are environment variables; an empty one counts as not set.\n"
		     "  %-20s  %-22s  %s\n",
		     "name", "default", "meaning");
	for (size_t i = 0; i < program->count; i++)
		if ((program->settings[i].programs & program->bit) != 0)
			print_setting(&program->settings[i]);
}

enum config_action config_arguments(const struct config_program *program, int argc, char **argv)
{
	const char *argument = argc == 2 ? argv[1] : "";

	if (argc <= 1)
		return CONFIG_RUN;
	if (program->option != NULL && argc <= 3 && strcmp(argv[1], program->option) == 0)
		return CONFIG_OPTION;
	if (strcmp(argument, "--check") == 0)
		return CONFIG_CHECK;
	if (strcmp(argument, "--help") == 0) {
		print_help(program);
	} else if (strcmp(argument, "--version") == 0) {
		(void)printf("%s %s\n", program->name, PACKAGE_VERSION);
	} else {
		(void)fprintf(stderr, "%s: unknown arguments\n", program->name);
		print_usage(stderr, program);
		return CONFIG_EXIT_USAGE;
	}
	return fflush(stdout) == 0 ? CONFIG_EXIT_OK : CONFIG_EXIT_USAGE;
}
