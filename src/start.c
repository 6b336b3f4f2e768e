/* start.c: the common start of both responders. */
#include "start.h"

#include <stdlib.h>

#include "base/log.h"
#include "db/db.h"

#define EXIT_USAGE 2

/* Everything that can be wrong before the first request, with no side effect: what --check does. */
static bool is_sound(enum program program, struct config *config, struct secret *secret)
{
	/* libpq looks host names up in the middle of the loop: a resolver that is away must not hold it for long. */
	if (setenv("RES_OPTIONS", "timeout:1 attempts:1", 0) != 0 || config_read(config, program) != RESULT_OK)
		return false;
	log_start(config_program_name(program), config->log_level);
	return secret_start() == RESULT_OK && db_check(config->database_url) == RESULT_OK &&
	       secret_load(secret, program, config->key_dir) == RESULT_OK;
}

bool start_responder(enum program program, int argc, char **argv, struct config *config, struct secret *secret,
		     int *status)
{
	enum config_action action = config_arguments(program, argc, argv);

	*status = EXIT_SUCCESS;
	if (action == CONFIG_EXIT_OK)
		return false;
	*status = EXIT_USAGE;
	if (action == CONFIG_EXIT_USAGE || !is_sound(program, config, secret))
		return false;
	*status = EXIT_SUCCESS;
	if (action == CONFIG_CHECK)
		secret_wipe(secret);
	return action == CONFIG_RUN;
}
