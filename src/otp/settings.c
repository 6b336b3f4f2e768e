/* settings.c: the settings of all programs, what they mean, and how they hang together. */
#include "otp/settings.h"

#include <string.h>
#include <strings.h>

#ifndef OTP_TEMPLATE_DIR
#error "the build must define OTP_TEMPLATE_DIR"
#endif

#define G PROGRAM_GENERATE
#define V PROGRAM_VALIDATE
#define W PROGRAM_WORKER

#define LISTEN_LENGTH 99 /* sun_path holds 108 with its NUL, and the listener appends a dot and its pid at first */

/* --- Readers of our own --- */

static void read_level(struct config_reading *reading, const struct config_setting *setting, const char *value,
		       void *place)
{
	int level = config_choice(reading, setting, value, log_level_names, LOG_LEVELS);

	if (level >= 0)
		*(enum log_level *)place = (enum log_level)level;
}

static void read_tls(struct config_reading *reading, const struct config_setting *setting, const char *value,
		     void *place)
{
	static const char *const names[] = {
	    [SMTP_TLS_REQUIRED] = "required",
	    [SMTP_TLS_OFF] = "off",
	    [SMTP_TLS_OFF_TRUSTED] = "off-trusted",
	};
	int mode = config_choice(reading, setting, value, names, sizeof(names) / sizeof(names[0]));

	if (mode >= 0)
		*(enum smtp_security *)place = (enum smtp_security)mode;
}

static void read_sender(struct config_reading *reading, const struct config_setting *setting, const char *value,
			void *place)
{
	const char *reason = NULL;

	if (value[0] == '\0')
		*(struct sender *)place = (struct sender){.address = ""};
	else if (strlen(value) > (size_t)setting->max)
		config_refuse(reading, setting, value, "must be at most %ld bytes long", setting->max);
	else if (sender_parse(place, value, &reason) != RESULT_OK)
		config_refuse(reading, setting, value, "%s", reason);
}

static void read_locale(struct config_reading *reading, const struct config_setting *setting, const char *value,
			void *place)
{
	char locale[LOCALE_BYTES] = "";

	if (value[0] != '\0' && locale_read(locale, value, strlen(value)) != RESULT_OK)
		config_refuse(reading, setting, value, "must be the tag of a language, such as de or pt-BR");
	else
		memcpy(place, locale, sizeof(locale));
}

/* What EHLO may say: a name, or an address in brackets (RFC 5321 4.1.3). */
static void read_helo(struct config_reading *reading, const struct config_setting *setting, const char *value,
		      void *place)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._[]:";

	if (value[strspn(value, allowed)] != '\0' || strlen(value) > (size_t)setting->max)
		config_refuse(reading, setting, value, "must be a host name, or an address such as [192.0.2.1]");
	else
		*(const char **)place = value;
}

static void read_return_path(struct config_reading *reading, const struct config_setting *setting, const char *value,
			     void *place)
{
	struct sender sender = {.name = ""};
	const char *reason = "";

	if (value[0] != '\0' && sender_parse(&sender, value, &reason) != RESULT_OK)
		config_refuse(reading, setting, value, "%s", reason);
	else if (sender.name[0] != '\0')
		config_refuse(reading, setting, value, "must be an address alone");
	else
		memcpy(place, sender.address, sizeof(sender.address));
}

/* One relay: "host:port", "[IPv6]:port", or with smtps:// before it. false: refused. */
static bool read_relay(struct config_reading *reading, const struct config_setting *setting, const char *value,
		       const char *text, size_t length, struct settings_relay *relay)
{
	static const char implicit[] = "smtps://";
	size_t prefix = strlen(implicit);

	relay->is_implicit = length > prefix && strncasecmp(text, implicit, prefix) == 0;
	if (relay->is_implicit) {
		text += prefix;
		length -= prefix;
	}
	if (endpoint_parse(&relay->endpoint, text, length) != RESULT_OK)
		config_refuse(reading, setting, value,
			      "must be host:port, [IPv6]:port or smtps://host:port, several separated by commas");
	else if (strcmp(relay->endpoint.port, "465") == 0 && !relay->is_implicit)
		config_refuse(reading, setting, value,
			      "a relay speaks TLS from the first byte on port 465: write smtps://%.*s", (int)length,
			      text);
	else
		return true;
	return false;
}

static void read_relays(struct config_reading *reading, const struct config_setting *setting, const char *value,
			void *place)
{
	struct settings_relays *relays = place;

	for (const char *at = value + strspn(value, " ");;) {
		size_t length = strcspn(at, ",");
		const char *next = at + length + (at[length] == ',');

		while (length > 0 && at[length - 1] == ' ')
			length--;
		if (relays->count == SETTINGS_RELAYS_MAX) {
			config_refuse(reading, setting, value, "must name at most %u relays", SETTINGS_RELAYS_MAX);
			return;
		}
		if (!read_relay(reading, setting, value, at, length, &relays->relay[relays->count++]))
			return;
		at = next + strspn(next, " ");
		if (at[0] == '\0')
			return;
	}
}

/* --- The table --- */

#define AT(member) offsetof(struct settings, member)

static const struct config_setting table[] = {
    {"DATABASE_URL", config_secret, NULL, 1, 4096, G | V | W, AT(database_url),
     "PostgreSQL connection string or URL, with the program's own role"},
    {"KEY_DIR", config_text, NULL, 1, 4000, G | V | W, AT(key_dir),
     "folder with the program's own keys, made by otp-keygen"},
    {"APPLICATIONS", config_text, "", 0, 4000, G | V | W, AT(applications),
     "file of the applications that use this service; empty: one, as described here"},
    {"LISTEN", config_text, "", 0, LISTEN_LENGTH, G | V, AT(listen),
     "path of the FastCGI socket; empty: a socket passed by systemd or as descriptor 0"},
    {"EXPIRE_MINUTES", config_number, "10", 1, 1440, G, AT(expire_minutes), "minutes that a code lives"},
    {"PASSWORD_LENGTH", config_number, "6", 4, 12, G, AT(password_length), "digits of a code"},
    {"MAX_ATTEMPTS", config_number, "5", 1, 100, G, AT(max_attempts), "guesses that a token allows"},
    {"RESEND_SECONDS", config_number, "60", 0, 86400, G, AT(resend_seconds),
     "seconds between two mails to an address; 0: no limit"},
    {"SENDS_PER_HOUR", config_number, "5", 0, 1000, G, AT(sends_per_hour),
     "mails to an address in an hour; 0: no limit"},
    {"SENDS_PER_DAY", config_number, "10", 0, 1000, G, AT(sends_per_day), "mails to an address in a day; 0: no limit"},
    {"BUDGET_PER_HOUR", config_number, "1000", 0, 1000000, G, AT(budget_per_hour),
     "mails in an hour that callers without a key cause; 0: no limit"},
    {"BATCH_MAX", config_number, "128", 1, 1024, G | V, AT(batch_max), "requests that go to the database together"},
    {"QUEUE_MAX", config_number, "2048", 1, 100000, G | V, AT(queue_max),
     "waiting requests beyond which the answer is 503"},
    {"OUTBOX_MAX", config_number, "100000", 0, 10000000, G, AT(outbox_max),
     "waiting mails beyond which the answer is 503; 0: no limit"},
    {"DOMAIN_SENDS_PER_HOUR", config_number, "0", 0, 1000000, G, AT(domain_sends_per_hour),
     "mails to one recipient domain in an hour, by each process; 0: no limit"},
    {"APP_NAME", config_text, "OTP", 1, 64, W, AT(app_name), "name of your application in the mail"},
    {"EMAIL_SUBJECT", config_text, "Your {{app_name}} code", 1, 200, W, AT(email_subject),
     "subject of the mail where its language has none; may hold {{app_name}} and more"},
    {"EMAIL_FROM", read_sender, NULL, 3, 320, W, AT(email_from),
     "sender of the mail: \"a@b.example\" or \"Name <a@b.example>\""},
    {"EMAIL_REPLY_TO", read_sender, "", 0, 320, W, AT(email_reply_to),
     "where answers to the mail go, as EMAIL_FROM; empty: to its sender"},
    {"LOCALE", read_locale, "", 0, 35, W, AT(locale), "language of the mail where the call names none; empty: en"},
    {"TEMPLATE_DIR", config_text, OTP_TEMPLATE_DIR, 1, 4000, W, AT(template_dir),
     "folder with the mail texts, one folder per locale"},
    {"SMTP_RELAYS", read_relays, "localhost:25", 1, 2000, W, AT(smtp_relays),
     "mail relays as \"host:port, smtps://host:465\", in order of preference"},
    {"SMTP_TLS", read_tls, "required", 0, 16, W, AT(smtp_tls),
     "required (STARTTLS, verified), off (plaintext, loopback relays only) or off-trusted (plaintext)"},
    {"SMTP_CA_FILE", config_text, "", 0, 4000, W, AT(smtp_ca_file),
     "file with the authorities that relays' certificates are checked against; empty: the system's"},
    {"SMTP_USER", config_text, "", 0, 255, W, AT(smtp_user), "user name at the relay; empty: no login"},
    {"SMTP_PASSWORD_FILE", config_text, "", 0, 4000, W, AT(smtp_password_file),
     "file with the password of SMTP_USER, mode 0400"},
    {"SMTP_HELO", read_helo, "", 0, 253, W, AT(smtp_helo),
     "name that the worker greets relays with; empty: the domain of EMAIL_FROM"},
    {"RETURN_PATH", read_return_path, "", 0, 320, W, AT(return_path),
     "address that relays send bounces to; empty: that of EMAIL_FROM"},
    {"WORKER_SESSIONS", config_number, "1", 1, 32, W, AT(worker_sessions), "delivery processes side by side"},
    {"MESSAGES_PER_SESSION", config_number, "10", 1, 1000, W, AT(messages_per_session),
     "mails over one connection to the relay"},
    {"RETENTION_HOURS", config_number, "24", 0, 8760, G | W, AT(retention_hours),
     "hours that rows are kept after expiry"},
    {"SWEEP_SECONDS", config_number, "60", 1, 86400, W, AT(sweep_seconds), "seconds between two sweeps of old rows"},
    {"SWEEP_BATCH", config_number, "500", 1, 100000, W, AT(sweep_batch),
     "rows that one statement of a sweep deletes at most"},
    {"LOG_LEVEL", read_level, "info", 0, 16, G | V | W, AT(log_level), "error, warning, info or debug"},
};

/* --- Rules that span settings --- */

/* Mail, and a password, go in the clear only where SMTP_TLS says so. */
static void check_relay(struct config_reading *reading, const struct config_program *program,
			const struct settings *settings, const struct settings_relay *setting)
{
	const struct endpoint *relay = &setting->endpoint;

	if (setting->is_implicit)
		return;
	if (settings->smtp_tls == SMTP_TLS_OFF && !relay->is_loopback)
		config_refuse(reading, config_find(program, "SMTP_RELAYS"), relay->host,
			      "is no loopback address, so SMTP_TLS=off is refused: set SMTP_TLS=required, or "
			      "SMTP_TLS=off-trusted if codes may cross the network to it in the clear");
	else if (settings->smtp_tls != SMTP_TLS_REQUIRED && settings->smtp_user[0] != '\0' && !relay->is_loopback)
		config_refuse(reading, config_find(program, "SMTP_USER"), settings->smtp_user,
			      "a password is not sent without TLS, unless to a loopback relay: set SMTP_TLS=required");
}

static void check_worker(struct config_reading *reading, const struct config_program *program, const void *config)
{
	const struct settings *settings = config;

	for (size_t i = 0; i < settings->smtp_relays.count; i++)
		check_relay(reading, program, settings, &settings->smtp_relays.relay[i]);
	if (settings->smtp_user[0] != '\0' && settings->smtp_password_file[0] == '\0')
		config_refuse(reading, config_find(program, "SMTP_PASSWORD_FILE"), "",
			      "is not set, but SMTP_USER is: name the file with its password, or unset SMTP_USER");
	if (settings->smtp_user[0] == '\0' && settings->smtp_password_file[0] != '\0')
		config_refuse(reading, config_find(program, "SMTP_USER"), "",
			      "is not set, but SMTP_PASSWORD_FILE is: name the user, or unset SMTP_PASSWORD_FILE");
}

/* --- The programs --- */

#define PROGRAM(name_, bit_, purpose_)                                            \
	.name = (name_), .purpose = (purpose_), .bit = (bit_), .settings = table, \
	.count = sizeof(table) / sizeof(table[0])

static const struct config_program generate = {PROGRAM(
    "otp-generate", G, "FastCGI responder for POST /generate-password: makes a token and a code and queues the mail")};
static const struct config_program validate = {PROGRAM(
    "otp-validate", V, "FastCGI responder for POST /validate-password: tells whether a code matches its token, once")};
static const struct config_program worker = {
    PROGRAM("otp-worker", W, "delivers the queued mails to an SMTP relay and deletes what has expired"),
    .option = "--probe", .option_meaning = "try each relay, and send a test mail if an address follows",
    .check = check_worker};

static const struct config_program *describe(enum program program)
{
	switch (program) {
	case PROGRAM_GENERATE:
		return &generate;
	case PROGRAM_VALIDATE:
		return &validate;
	case PROGRAM_WORKER:
		return &worker;
	}
	return NULL;
}

const char *program_name(enum program program)
{
	return describe(program)->name;
}

enum result settings_read(struct settings *settings, enum program program)
{
	struct settings found;
	enum result result;

	memset(&found, 0, sizeof(found));
	result = config_read(describe(program), &found);
	if (result == RESULT_OK)
		*settings = found;
	return result;
}

enum result settings_read_value(const char *setting, const char *name, const char *value, void *place)
{
	return config_read_value(config_find(&worker, setting), name, value, place); /* all have the whole table */
}

enum config_action settings_arguments(enum program program, int argc, char **argv)
{
	return config_arguments(describe(program), argc, argv);
}
