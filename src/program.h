/* program.h: the start and the end that the three programs share. */
#ifndef OTP_PROGRAM_H
#define OTP_PROGRAM_H

#include <stdbool.h>

#include "otp/applications.h"
#include "otp/keys.h"
#include "otp/settings.h"

/* What the environment and the files that it names say, checked. */
struct program_given {
	const struct settings *settings;
	const struct keys *keys;
	struct applications *applications; /* for applications_reload, if the program does */
};

/* What makes a program the one it is. context comes first in its calls. */
struct program_parts {
	enum program program;
	void *context;

	/* Looks at all else that can be wrong before the first side effect, and complains of it; NULL: nothing. */
	bool (*prepare)(void *context, struct program_given *given);

	/* What the program's own option does; word: what stands behind it, "": nothing. NULL: there is none. */
	int (*option)(void *context, struct program_given *given, const char *word);

	/* Works until it is told to stop; returns the exit status. */
	int (*run)(void *context, struct program_given *given);
};

/* In order: arguments, the process itself, settings, log, database's address, keys, applications, prepare; then, unless
   --check was asked for, run. Wipes the keys. Returns the exit status: 2 if something is wrong that a person can mend,
   which was complained of. */
int program_main(const struct program_parts *parts, int argc, char **argv);

/* Reads the applications anew, and says so in the log. RESULT_OK: those of before are gone; otherwise they stay in
 * force.
 */
OTP_MUST_CHECK enum result program_reload(struct program_given *given);

#endif
