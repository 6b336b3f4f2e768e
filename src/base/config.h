/* config.h: settings in environment variables: one table drives reading, --help and the checks of the documents. */
#ifndef OTP_CONFIG_H
#define OTP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

struct config_reading;
struct config_setting;

/* Parses value, stores it in place (the setting's member) or refuses it by config_refuse. value is never empty. */
typedef void config_reader(struct config_reading *reading, const struct config_setting *setting, const char *value,
			   void *place);

struct config_setting {
	const char *name;
	config_reader *read;
	const char *initial; /* NULL: required */
	long min, max;       /* of a number; of the bytes of a text */
	unsigned programs;   /* that have it, a bit each */
	size_t offset;       /* of its member */
	const char *meaning; /* for --help and for complaints: "must be the ..." */
};

/* The usual readers: an int; a const char * to UTF-8 text without control characters. What config_secret reads is never
   shown: it may hold a password. */
config_reader config_number, config_text, config_secret;

/* Names of an int's values, for a reader of a choice: the index of value, or -1 after a complaint. */
int config_choice(struct config_reading *reading, const struct config_setting *setting, const char *value,
		  const char *const names[], size_t count);

/* Says "NAME=value: fix". The setting is named without a value if value is "". */
__attribute__((format(printf, 4, 5))) void config_refuse(struct config_reading *reading,
							 const struct config_setting *setting, const char *value,
							 const char *fix, ...);

/* A program and its settings. */
struct config_program {
	const char *name;    /* "otp-generate" */
	const char *purpose; /* for --help */
	unsigned bit;        /* in config_setting.programs */
	const struct config_setting *settings;
	size_t count;
	const char *option;         /* one more option, such as "--probe"; NULL: none */
	const char *option_meaning; /* for --help */
	/* Rules that span settings; NULL: none. It refuses by naming one: config_refuse(reading, config_find(...)...).
	 */
	void (*check)(struct config_reading *reading, const struct config_program *program, const void *config);
};

/* The setting of that name, which must be one of the program's. */
const struct config_setting *config_find(const struct config_program *program, const char *name);

/* Fills config from the environment, only the settings that the program has; an empty variable counts as not set. Texts
   point into the environment or to defaults. On RESULT_INVALID every wrong setting was complained of, with the fix. */
OTP_MUST_CHECK enum result config_read(const struct config_program *program, void *config);

/* Reads a value that is written elsewhere, in a file, but follows the setting's rule; it may be empty if the setting's
   min is 0. name: its place for the complaint. */
OTP_MUST_CHECK enum result config_read_value(const struct config_setting *setting, const char *name, const char *value,
					     void *place);

/* What the command line asks for. */
enum config_action {
	CONFIG_RUN,
	CONFIG_OPTION,    /* the program's own option, perhaps with a word behind it */
	CONFIG_CHECK,     /* --check: validate everything, then exit without any side effect */
	CONFIG_EXIT_OK,   /* --help or --version was answered on standard output */
	CONFIG_EXIT_USAGE /* the complaint is on standard error; exit with 2 */
};

/* Reads the arguments of a program; answers --help (made from the table) and --version itself. */
enum config_action config_arguments(const struct config_program *program, int argc, char **argv);

#endif
