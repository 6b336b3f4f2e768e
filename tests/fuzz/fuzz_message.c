/* fuzz_message.c: A10, A11: whatever the settings of the mail, the address and the language say, its headers are those
 * that are meant, and its recipient the one. The input: APP_NAME, EMAIL_SUBJECT, EMAIL_FROM, address and language, each
 * ending with a NUL. */
#include "fuzz.h"
#include "mail.h"
#include "otp/address.h"
#include "otp/locale.h"
#include "otp/settings.h"

/* "NAME=value", in the environment itself. */
static char variable[][600] = {"APP_NAME=", "EMAIL_SUBJECT=", "EMAIL_FROM="};
#define VARIABLES (sizeof(variable) / sizeof(variable[0]))

static size_t name_length[VARIABLES];
static FILE *nowhere; /* for complaints, which others look at */

static void prepare(void)
{
	static char templates[4096];
	const char *source = getenv("OTP_SOURCE");
	FUZZ_ASSERT(source != NULL);
	(void)snprintf(templates, sizeof(templates), "TEMPLATE_DIR=%s/templates", source);
	(void)putenv(templates);
	(void)setenv("DATABASE_URL", "dbname=otp", 1);
	(void)setenv("KEY_DIR", "/keys", 1);
	for (size_t i = 0; i < VARIABLES; i++) {
		name_length[i] = strlen(variable[i]);
		(void)putenv(variable[i]);
	}
	nowhere = fopen("/dev/null", "w");
	FUZZ_ASSERT(nowhere != NULL);
}

/* NULL: refused. */
static struct composers *compose(void)
{
	static struct settings settings;
	FILE *kept = stderr;
	stderr = nowhere;
	enum result result = settings_read(&settings, PROGRAM_WORKER);
	struct composers *composers = result == RESULT_OK ? mail_compose(&settings) : NULL;
	stderr = kept;
	return composers;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char text[600], locale[LOCALE_BYTES];
	const char *reason = NULL;
	struct address address;
	if (name_length[0] == 0)
		prepare();
	for (size_t i = 0; i < VARIABLES; i++)
		(void)fuzz_text(&input, '\0', variable[i] + name_length[i], sizeof(variable[i]) - name_length[i]);
	size_t length = fuzz_text(&input, '\0', text, sizeof(text));
	if (address_parse(&address, text, length, &reason) != RESULT_OK)
		return 0;
	length = fuzz_text(&input, '\0', text, sizeof(text));
	bool has_locale = locale_read(locale, text, length) == RESULT_OK;
	struct composers *composers = compose();
	if (composers != NULL)
		(void)mail_build_and_check(composers, address.recipient, has_locale ? locale : NULL);
	composers_free(composers);
	return 0;
}
