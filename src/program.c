/* program.c: the start and the end that the three programs share. */
#include "program.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/complaint.h"
#include "base/jsondoc.h"
#include "base/log.h"
#include "base/process.h"
#include "db/db_target.h"

#define EXIT_USAGE 2

/* The database's address, keys, applications, and what the program itself has to check. */
static bool is_sound(const struct program_parts *parts, struct program_given *given, struct keys *keys, bool is_check)
{
	uint64_t today_ms = is_check ? (uint64_t)clock_wall_ms() : 0;

	jsondoc_start();
	return db_target_check(given->settings->database_url) == RESULT_OK &&
	       keys_load(keys, parts->program, given->settings->key_dir) == RESULT_OK &&
	       applications_load(&given->applications, given->settings, today_ms) == RESULT_OK &&
	       (parts->prepare == NULL || parts->prepare(parts->context, given));
}

/* The process, its log and its settings. */
static bool start(const struct program_parts *parts, struct settings *settings)
{
	const char *name = program_name(parts->program);

	complaint_start(name);
	log_start(name, LOG_INFO);
	/* libpq looks host names up in the middle of the loop: a resolver that is away must not hold it for long. */
	if (process_start() != RESULT_OK || setenv("RES_OPTIONS", "timeout:1 attempts:1", 0) != 0 ||
	    settings_read(settings, parts->program) != RESULT_OK)
		return false;
	log_start(name, settings->log_level);
	return true;
}

enum result program_reload(struct program_given *given)
{
	enum result result = applications_reload(&given->applications, given->settings);

	if (result == RESULT_OK)
		log_event(LOG_INFO, "applications_loaded",
			  LOG_NUMBER("applications", (long long)applications_count(given->applications)));
	return result;
}

int program_main(const struct program_parts *parts, int argc, char **argv)
{
	static struct settings settings;
	static struct keys keys;
	struct program_given given = {.settings = &settings, .keys = &keys};
	enum config_action action = settings_arguments(parts->program, argc, argv);
	int status;

	if (action == CONFIG_EXIT_OK)
		return EXIT_SUCCESS;
	if (action == CONFIG_EXIT_USAGE)
		return EXIT_USAGE;
	/* Everything that can be wrong before the first side effect: what --check does. */
	if (!start(parts, &settings) || !is_sound(parts, &given, &keys, action == CONFIG_CHECK)) {
		status = EXIT_USAGE;
	} else if (action == CONFIG_CHECK) {
		status = EXIT_SUCCESS;
	} else if (action == CONFIG_OPTION) {
		status = parts->option(parts->context, &given, argc > 2 ? argv[2] : "");
	} else {
		complaint_to_log();
		status = parts->run(parts->context, &given);
	}
	applications_free(given.applications);
	keys_wipe(&keys);
	return status;
}
