/* start.h: the common start of both responders. */
#ifndef OTP_START_H
#define OTP_START_H

#include <stdbool.h>

#include "base/config.h"
#include "base/result.h"
#include "base/secret.h"

/* In order: arguments, settings, log, secrets. false: the program ends now with *status (--help, --check, or something
   wrong, which was said). */
OTP_MUST_CHECK bool start_responder(enum program program, int argc, char **argv, struct config *config,
				    struct secret *secret, int *status);

#endif
