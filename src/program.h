/* program.h: the start and the end that the three programs share. */
#ifndef OTP_PROGRAM_H
#define OTP_PROGRAM_H

#include <stdbool.h>

#include "otp/keys.h"
#include "otp/settings.h"

/* What makes a program the one it is. context comes first in its calls. */
struct program_parts {
	enum program program;
	void *context;

	/* Looks at all else that can be wrong before the first side effect, and complains of it; NULL: nothing. */
	bool (*prepare)(void *context, const struct settings *settings, const struct keys *keys);

	/* Works until it is told to stop; returns the exit status. */
	int (*run)(void *context, const struct settings *settings, const struct keys *keys);
};

/* In order: arguments, the process itself, settings, log, database's address, keys, prepare; then, unless --check was
   asked for, run. Wipes the keys. Returns the exit status: 2 if something is wrong that a person can mend, which was
   complained of. */
int program_main(const struct program_parts *parts, int argc, char **argv);

#endif
