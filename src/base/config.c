/* config.c: the settings of all programs: one table that drives parsing, --help and the check of the README. */
#include "base/config.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#if !defined OTP_TEMPLATE_DIR || !defined PACKAGE_VERSION
#error "the build must define OTP_TEMPLATE_DIR and PACKAGE_VERSION"
#endif

#define G PROGRAM_GENERATE
#define V PROGRAM_VALIDATE
#define W PROGRAM_WORKER

#define SHOWN_BYTES 80   /* of a wrong value in a complaint */
#define LISTEN_LENGTH 99 /* sun_path holds 108 with its NUL, and the listener appends a dot and its pid at first */

enum kind {
	KIND_NUMBER,    /* min to max */
	KIND_TEXT,      /* UTF-8 of at most max bytes without control characters */
	KIND_SECRET,    /* likewise, but never shown: it may hold a password */
	KIND_FROM,      /* "address" or "Name <address>" */
	KIND_RELAYS,    /* "host:port, host:port" */
	KIND_TLS,       /* a name of enum smtp_security */
	KIND_LOG_LEVEL, /* a name of enum log_level */
};

struct setting {
	const char *name;
	enum kind kind;
	const char *initial; /* NULL: required */
	long min, max;
	unsigned programs;
	size_t offset; /* in struct config, of an int or a const char * */
	const char *meaning;
};

#define AT(member) offsetof(struct config, member)

static const struct setting settings[] = {
    {"DATABASE_URL", KIND_SECRET, NULL, 1, 4096, G | V | W, AT(database_url),
     "PostgreSQL connection string or URL, with the program's own role"},
    {"KEY_DIR", KIND_TEXT, NULL, 1, 4000, G | V | W, AT(key_dir),
     "folder with the program's own keys, made by otp-keygen"},
    {"LISTEN", KIND_TEXT, "", 0, LISTEN_LENGTH, G | V, AT(listen),
     "path of the FastCGI socket; empty: a socket passed by systemd or as descriptor 0"},
    {"EXPIRE_MINUTES", KIND_NUMBER, "10", 1, 1440, G | W, AT(expire_minutes), "minutes that a code lives"},
    {"PASSWORD_LENGTH", KIND_NUMBER, "6", 4, 12, G, AT(password_length), "digits of a code"},
    {"MAX_ATTEMPTS", KIND_NUMBER, "5", 1, 100, G, AT(max_attempts), "guesses that a token allows"},
    {"RESEND_SECONDS", KIND_NUMBER, "60", 0, 86400, G, AT(resend_seconds),
     "seconds between two mails to an address; 0: no limit"},
    {"SENDS_PER_HOUR", KIND_NUMBER, "5", 0, 1000, G, AT(sends_per_hour), "mails to an address in an hour; 0: no limit"},
    {"SENDS_PER_DAY", KIND_NUMBER, "10", 0, 1000, G, AT(sends_per_day), "mails to an address in a day; 0: no limit"},
    {"BATCH_MAX", KIND_NUMBER, "128", 1, 1024, G | V, AT(batch_max), "requests that go to the database together"},
    {"QUEUE_MAX", KIND_NUMBER, "2048", 1, 100000, G | V, AT(queue_max),
     "waiting requests beyond which the answer is 503"},
    {"APP_NAME", KIND_TEXT, "OTP", 1, 64, W, AT(app_name), "name of your application in the mail"},
    {"EMAIL_SUBJECT", KIND_TEXT, "Your {{app_name}} code", 1, 200, W, AT(email_subject),
     "subject of the mail; {{app_name}} is replaced"},
    {"EMAIL_FROM", KIND_FROM, NULL, 3, 320, W, AT(email_from),
     "sender of the mail: \"a@b.example\" or \"Name <a@b.example>\""},
    {"TEMPLATE_DIR", KIND_TEXT, OTP_TEMPLATE_DIR, 1, 4000, W, AT(template_dir),
     "folder with the mail texts, one folder per locale"},
    {"SMTP_RELAYS", KIND_RELAYS, "localhost:25", 1, 2000, W, AT(smtp_relays),
     "mail relays as \"host:port, host:port\", in order of preference"},
    {"SMTP_TLS", KIND_TLS, "required", 0, 16, W, AT(smtp_tls_name),
     "required (STARTTLS, verified), off (plaintext, loopback relays only) or off-trusted (plaintext)"},
    {"SMTP_CA_FILE", KIND_TEXT, "", 0, 4000, W, AT(smtp_ca_file),
     "file with the authorities that relays' certificates are checked against; empty: the system's"},
    {"SMTP_USER", KIND_TEXT, "", 0, 255, W, AT(smtp_user), "user name at the relay; empty: no login"},
    {"SMTP_PASSWORD_FILE", KIND_TEXT, "", 0, 4000, W, AT(smtp_password_file),
     "file with the password of SMTP_USER, mode 0400"},
    {"WORKER_SESSIONS", KIND_NUMBER, "1", 1, 32, W, AT(worker_sessions), "delivery processes side by side"},
    {"MESSAGES_PER_SESSION", KIND_NUMBER, "50", 1, 1000, W, AT(messages_per_session),
     "mails over one connection to the relay"},
    {"RETENTION_HOURS", KIND_NUMBER, "24", 0, 8760, W, AT(retention_hours), "hours that rows are kept after expiry"},
    {"SWEEP_SECONDS", KIND_NUMBER, "60", 1, 86400, W, AT(sweep_seconds), "seconds between two sweeps of old rows"},
    {"SWEEP_BATCH", KIND_NUMBER, "500", 1, 100000, W, AT(sweep_batch),
     "rows that one statement of a sweep deletes at most"},
    {"LOG_LEVEL", KIND_LOG_LEVEL, "info", 0, 16, G | V | W, AT(log_level_name), "error, warning, info or debug"},
};

#define SETTINGS (sizeof settings / sizeof settings[0])

static const char *const tls_names[] = {
    [SMTP_TLS_REQUIRED] = "required",
    [SMTP_TLS_OFF] = "off",
    [SMTP_TLS_OFF_TRUSTED] = "off-trusted",
};

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARNING] = "warning",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

/* What one reading has found so far. */
struct reading {
	struct config config;
	enum program program;
	bool is_wrong;
};

const char *config_program_name(enum program program)
{
	switch (program) {
	case PROGRAM_GENERATE:
		return "otp-generate";
	case PROGRAM_VALIDATE:
		return "otp-validate";
	case PROGRAM_WORKER:
		return "otp-worker";
	}
	return "otp";
}

static const char *program_purpose(enum program program)
{
	switch (program) {
	case PROGRAM_GENERATE:
		return "FastCGI responder for POST /generate-password: makes a token and a code and queues the mail";
	case PROGRAM_VALIDATE:
		return "FastCGI responder for POST /validate-password: tells whether a code matches its token, once";
	case PROGRAM_WORKER:
		return "delivers the queued mails to an SMTP relay and deletes what has expired";
	}
	return "";
}

/* --- Complaints --- */

/* Prints "program: NAME=value: fix" on one line, whatever bytes the value holds. */
__attribute__((format(printf, 4, 5))) static void complain(struct reading *reading, const struct setting *setting,
							   const char *value, const char *fix, ...)
{
	char shown[SHOWN_BYTES + 1];
	size_t length = 0;
	reading->is_wrong = true;
	for (; value[length] != '\0' && length < SHOWN_BYTES; length++) {
		unsigned char byte = (unsigned char)value[length];
		shown[length] = (char)(byte < 0x20 || byte >= 0x7F ? '?' : byte);
	}
	shown[length] = '\0';
	(void)fprintf(stderr, "%s: %s", config_program_name(reading->program), setting->name);
	if (value[0] != '\0' && setting->kind != KIND_SECRET)
		(void)fprintf(stderr, "=%s%s", shown, value[length] != '\0' ? "..." : "");
	(void)fputs(": ", stderr);
	va_list arguments;
	va_start(arguments, fix);
	(void)vfprintf(stderr, fix, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
}

/* --- Values --- */

static bool is_digits(const char *text)
{
	return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static void read_number(struct reading *reading, const struct setting *setting, const char *value)
{
	long number = is_digits(value) && strlen(value) <= 9 ? strtol(value, NULL, 10) : -1;
	if (number < setting->min || number > setting->max) {
		complain(reading, setting, value, "must be a whole number from %ld to %ld", setting->min, setting->max);
		return;
	}
	int stored = (int)number;
	memcpy((char *)&reading->config + setting->offset, &stored, sizeof stored);
}

/* Control characters in a setting would end a header, a log line or a path early. */
static bool is_plain_text(const char *value)
{
	for (const unsigned char *byte = (const unsigned char *)value; *byte != '\0'; byte++)
		if (*byte < 0x20 || *byte == 0x7F || (*byte == 0xC2 && byte[1] < 0xA0))
			return false;
	return utf8_is_valid(value, strlen(value));
}

/* The shape of an address; the worker parses it in full. */
static bool is_address(const char *text, size_t length)
{
	const char *at = memchr(text, '@', length);
	if (at == NULL || at == text || at == text + length - 1)
		return false;
	if (memchr(at + 1, '@', length - (size_t)(at + 1 - text)) != NULL)
		return false;
	for (size_t i = 0; i < length; i++)
		if (strchr(" ,;:<>()[]\\\"", text[i]) != NULL)
			return false;
	return true;
}

static bool is_sender(const char *value)
{
	const char *open = strchr(value, '<');
	if (open == NULL)
		return is_address(value, strlen(value));
	size_t length = strlen(open + 1);
	return length > 0 && open[length] == '>' && is_address(open + 1, length - 1);
}

/* RFC 1123 names, by bytes: letters, digits, hyphens, dots; underscores as some private names have them. */
static bool is_host(const char *host)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	return host[0] != '\0' && host[0] != '-' && host[0] != '.' && host[strspn(host, allowed)] == '\0' &&
	       strstr(host, "..") == NULL;
}

static bool is_loopback(const char *host, bool is_ipv6)
{
	struct in6_addr six;
	struct in_addr four;
	if (is_ipv6)
		return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
	return strcmp(host, "localhost") == 0 ||
	       (inet_pton(AF_INET, host, &four) == 1 && ntohl(four.s_addr) >> 24 == IN_LOOPBACKNET);
}

static bool is_port(const char *port)
{
	return is_digits(port) && port[0] != '0' && strtol(port, NULL, 10) <= 65535;
}

/* "host:port" or "[IPv6]:port" of length bytes. */
static bool parse_relay(const char *text, size_t length, struct config_relay *relay)
{
	const char *colon = memrchr(text, ':', length);
	if (colon == NULL)
		return false;
	size_t host_length = (size_t)(colon - text);
	size_t port_length = length - host_length - 1;
	bool is_ipv6 = host_length > 2 && text[0] == '[' && colon[-1] == ']';
	if (is_ipv6) {
		text++;
		host_length -= 2;
	}
	if (host_length >= sizeof relay->host || port_length >= sizeof relay->port)
		return false;
	memset(relay, 0, sizeof *relay);
	memcpy(relay->host, text, host_length);
	memcpy(relay->port, colon + 1, port_length);
	relay->is_loopback = is_loopback(relay->host, is_ipv6);
	struct in6_addr six;
	return is_port(relay->port) && (is_ipv6 ? inet_pton(AF_INET6, relay->host, &six) == 1 : is_host(relay->host));
}

enum result config_next_relay(const char **list, struct config_relay *relay)
{
	struct config_relay found = {.host = ""};
	const char *start = *list + strspn(*list, " ");
	size_t length = strcspn(start, ",");
	const char *next = start + length + (start[length] == ',');
	while (length > 0 && start[length - 1] == ' ')
		length--;
	if (start[0] != '\0' && !parse_relay(start, length, &found))
		return RESULT_INVALID;
	*list = next;
	*relay = found;
	return RESULT_OK;
}

/* At least one relay, and only ones to which SMTP_TLS allows mail. */
static void check_relays(struct reading *reading, const struct setting *setting)
{
	const struct config *config = &reading->config;
	const char *list = config->smtp_relays;
	struct config_relay relay;
	size_t count = 0;
	for (;; count++) {
		if (config_next_relay(&list, &relay) != RESULT_OK) {
			complain(reading, setting, config->smtp_relays,
				 "must be host:port or [IPv6]:port, several separated by commas");
			return;
		}
		if (relay.host[0] == '\0')
			break;
		if (config->smtp_tls == SMTP_TLS_OFF && !relay.is_loopback) {
			complain(reading, setting, config->smtp_relays,
				 "%s is no loopback address, so SMTP_TLS=off is refused: set SMTP_TLS=required, or "
				 "SMTP_TLS=off-trusted if codes may cross the network to it in the clear",
				 relay.host);
			return;
		}
	}
	if (count == 0)
		complain(reading, setting, config->smtp_relays, "must name a relay as host:port");
}

/* The index of value among count names, or -1 after a complaint. */
static int read_name(struct reading *reading, const struct setting *setting, const char *value,
		     const char *const names[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(value, names[i]) == 0)
			return (int)i;
	complain(reading, setting, value, "must be %s", setting->meaning);
	return -1;
}

static void read_tls(struct reading *reading, const struct setting *setting, const char *value)
{
	int index = read_name(reading, setting, value, tls_names, sizeof tls_names / sizeof tls_names[0]);
	if (index >= 0)
		reading->config.smtp_tls = (enum smtp_security)index;
}

static void read_level(struct reading *reading, const struct setting *setting, const char *value)
{
	int index = read_name(reading, setting, value, level_names, sizeof level_names / sizeof level_names[0]);
	if (index >= 0)
		reading->config.log_level = (enum log_level)index;
}

static void read_text(struct reading *reading, const struct setting *setting, const char *value)
{
	if (strlen(value) > (size_t)setting->max)
		complain(reading, setting, value, "must be at most %ld bytes long", setting->max);
	else if (!is_plain_text(value))
		complain(reading, setting, value, "must be UTF-8 text without control characters");
	else if (setting->kind == KIND_FROM && !is_sender(value))
		complain(reading, setting, value,
			 "must be \"address\" or \"Name <address>\", such as "
			 "\"Example <no-reply@example.com>\"");
	memcpy((char *)&reading->config + setting->offset, &value, sizeof value);
}

static void read_setting(struct reading *reading, const struct setting *setting)
{
	const char *value = getenv(setting->name);
	/* Compose and systemd files pass what is not set as an empty value. */
	if (value == NULL || value[0] == '\0')
		value = setting->initial;
	if (value == NULL) {
		complain(reading, setting, "", "is not set; it must be the %s", setting->meaning);
		return;
	}
	if (setting->kind == KIND_NUMBER)
		read_number(reading, setting, value);
	else
		read_text(reading, setting, value);
	if (setting->kind == KIND_TLS)
		read_tls(reading, setting, value);
	else if (setting->kind == KIND_LOG_LEVEL)
		read_level(reading, setting, value);
}

static const struct setting *find_setting(const char *name)
{
	size_t i = 0;
	while (strcmp(settings[i].name, name) != 0)
		i++;
	return &settings[i];
}

/* Rules that span settings. */
static void check_worker(struct reading *reading)
{
	const struct config *config = &reading->config;
	check_relays(reading, find_setting("SMTP_RELAYS"));
	if (config->smtp_user[0] != '\0' && config->smtp_password_file[0] == '\0')
		complain(reading, find_setting("SMTP_PASSWORD_FILE"), "",
			 "is not set, but SMTP_USER is: name the file with its password, or unset SMTP_USER");
	if (config->smtp_user[0] == '\0' && config->smtp_password_file[0] != '\0')
		complain(reading, find_setting("SMTP_USER"), "",
			 "is not set, but SMTP_PASSWORD_FILE is: name the user, or unset SMTP_PASSWORD_FILE");
}

enum result config_read(struct config *config, enum program program)
{
	struct reading reading = {.program = program};
	for (size_t i = 0; i < SETTINGS; i++)
		if ((settings[i].programs & (unsigned)program) != 0)
			read_setting(&reading, &settings[i]);
	if (program == PROGRAM_WORKER)
		check_worker(&reading);
	if (reading.is_wrong)
		return RESULT_INVALID;
	*config = reading.config;
	return RESULT_OK;
}

/* --- Arguments --- */

static void print_usage(FILE *out, enum program program)
{
	(void)fprintf(out, "Usage: %s [--check | --help | --version]\n", config_program_name(program));
}

static void print_setting(const struct setting *setting)
{
	char range[48] = "";
	const char *initial = setting->initial == NULL ? "(required)" : setting->initial;
	if (setting->kind == KIND_NUMBER)
		(void)snprintf(range, sizeof range, " (%ld to %ld)", setting->min, setting->max);
	(void)printf("  %-20s  %-22s  %s%s\n", setting->name, initial[0] == '\0' ? "(empty)" : initial,
		     setting->meaning, range);
}

static void print_help(enum program program)
{
	(void)printf("%s: %s.\n\n", config_program_name(program), program_purpose(program));
	print_usage(stdout, program);
	(void)printf("  --check    validate the settings, keys and files, without any side effect\n"
		     "  --help     print this text\n"
		     "  --version  print the version\n\n"
		     "Settings are environment variables; an empty one counts as not set.\n"
		     "  %-20s  %-22s  %s\n",
		     "name", "default", "meaning");
	for (size_t i = 0; i < SETTINGS; i++)
		if ((settings[i].programs & (unsigned)program) != 0)
			print_setting(&settings[i]);
}

enum config_action config_arguments(enum program program, int argc, char **argv)
{
	const char *argument = argc == 2 ? argv[1] : "";
	if (argc <= 1)
		return CONFIG_RUN;
	if (strcmp(argument, "--check") == 0)
		return CONFIG_CHECK;
	if (strcmp(argument, "--help") == 0) {
		print_help(program);
	} else if (strcmp(argument, "--version") == 0) {
		(void)printf("%s %s\n", config_program_name(program), PACKAGE_VERSION);
	} else {
		(void)fprintf(stderr, "%s: unknown arguments\n", config_program_name(program));
		print_usage(stderr, program);
		return CONFIG_EXIT_USAGE;
	}
	return fflush(stdout) == 0 ? CONFIG_EXIT_OK : CONFIG_EXIT_USAGE;
}
