/* fuzz_settings.c: A25: whatever the environment holds, each wrong setting is complained of by its name, and no
 * secret is shown. The input: a digit for the program, then "NAME=value" several times, each ending with a NUL. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/complaint.h"
#include "db/db_target.h"
#include "fuzz.h"
#include "otp/settings.h"

#define SETTINGS_MAX 64U
#define SECRET "cAnArY"

static char name[SETTINGS_MAX + 1][32];       /* the last one is for what is none */
static char variable[SETTINGS_MAX + 1][5000]; /* "NAME=value", in the environment itself */
static size_t count;

/* The number of a name; count: there is none. */
static size_t find(const char *text, size_t length)
{
	size_t i = 0;
	while (i < count && (strlen(name[i]) != length || memcmp(name[i], text, length) != 0))
		i++;
	return i;
}

/* All names there are, from --help of all programs. */
static void find_names(void)
{
	char program[] = "fuzz", option[] = "--help", *help[] = {program, option};
	static char text[65536];
	int kept = dup(STDOUT_FILENO), file = memfd_create("help", 0);
	(void)dup2(file, STDOUT_FILENO);
	for (unsigned bit = 1; bit <= PROGRAM_WORKER; bit *= 2)
		(void)settings_arguments((enum program)bit, 2, help);
	(void)dup2(kept, STDOUT_FILENO);
	FUZZ_ASSERT(pread(file, text, sizeof(text) - 1, 0) > 0);
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		if (count < SETTINGS_MAX && sscanf(line, "  %31[A-Z_] ", name[count]) == 1 &&
		    find(name[count], strlen(name[count])) == count)
			count++;
	FUZZ_ASSERT(count > 20 && count < SETTINGS_MAX);
	name[count][0] = '\0';
	for (size_t i = 0; i < count; i++) {
		(void)snprintf(variable[i], sizeof(variable[i]), "%s=", name[i]);
		(void)putenv(variable[i]);
	}
}

/* Is the line "program: NAME: fix" or "program: NAME=value: fix"? */
static void check_line(const char *program, const char *line)
{
	size_t length = strlen(program);
	FUZZ_ASSERT(strncmp(line, program, length) == 0 && strncmp(line + length, ": ", 2) == 0);
	line += length + 2;
	length = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	FUZZ_ASSERT((line[length] == '=' || line[length] == ':') && strstr(line, ": ") != NULL);
	FUZZ_ASSERT(find(line, length) < count);
}

static void read_all(enum program program)
{
	static char said[65536];
	struct settings settings;
	FILE *kept = stderr;
	stderr = fmemopen(said, sizeof(said), "w");
	complaint_start(program_name(program));
	enum result result = settings_read(&settings, program);
	if (result == RESULT_OK)
		result = db_target_check(settings.database_url);
	(void)fclose(stderr);
	stderr = kept;
	FUZZ_ASSERT((result == RESULT_OK) == (said[0] == '\0'));
	FUZZ_ASSERT(strstr(said, SECRET) == NULL);
	for (char *line = strtok(said, "\n"); line != NULL; line = strtok(NULL, "\n"))
		check_line(program_name(program), line);
	memset(said, 0, sizeof(said));
}

static void set(struct fuzz_input *input)
{
	char text[64];
	size_t i = find(text, fuzz_text(input, '=', text, sizeof(text)));
	char *value = variable[i] + strlen(name[i]) + 1;
	size_t room = sizeof(variable[i]) - (size_t)(value - variable[i]) - sizeof(SECRET);
	size_t length = fuzz_text(input, '\0', value, room);
	if (length > 0 && strcmp(name[i], "DATABASE_URL") == 0)
		strcat(value, SECRET);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	if (memmem(data, size, SECRET, strlen(SECRET)) != NULL)
		return 0;
	if (count == 0)
		find_names();
	enum program program = (enum program)(1U << fuzz_byte(&input) % 3);
	for (size_t i = 0; i < count; i++)
		variable[i][strlen(name[i]) + 1] = '\0';
	while (input.left > 0)
		set(&input);
	read_all(program);
	return 0;
}
