/* program.c: the start and the end that the three programs share. */
#include "program.h"

#include <stdlib.h>

#include "base/complaint.h"
#include "base/log.h"
#include "base/process.h"
#include "db/db_target.h"

#define EXIT_USAGE 2

/* Everything that can be wrong before the first side effect: what --check does. */
static bool is_sound(const struct program_parts *parts, struct settings *settings, struct keys *keys)
{
	const char *name = program_name(parts->program);

	complaint_start(name);
	log_start(name, LOG_INFO);
	/* libpq looks host names up in the middle of the loop: a resolver that is away must not hold it for long. */
	if (process_start() != RESULT_OK || setenv("RES_OPTIONS", "timeout:1 attempts:1", 0) != 0 ||
	    settings_read(settings, parts->program) != RESULT_OK)
		return false;
	log_start(name, settings->log_level);
	return db_target_check(settings->database_url) == RESULT_OK &&
	       keys_load(keys, parts->program, settings->key_dir) == RESULT_OK &&
	       (parts->prepare == NULL || parts->prepare(parts->context, settings, keys));
}

int program_main(const struct program_parts *parts, int argc, char **argv)
{
	static struct settings settings;
	static struct keys keys;
	enum config_action action = settings_arguments(parts->program, argc, argv);
	int status = EXIT_USAGE;

	if (action == CONFIG_EXIT_OK)
		return EXIT_SUCCESS;
	if (action == CONFIG_EXIT_USAGE)
		return EXIT_USAGE;
	if (is_sound(parts, &settings, &keys)) {
		complaint_to_log();
		status = action == CONFIG_CHECK ? EXIT_SUCCESS : parts->run(parts->context, &settings, &keys);
	}
	keys_wipe(&keys);
	return status;
}
