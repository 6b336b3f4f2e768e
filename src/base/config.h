/* config.h: the settings of all programs, read once from the environment. */
#ifndef OTP_CONFIG_H
#define OTP_CONFIG_H

#include <stdbool.h>

#include "base/log.h"
#include "base/result.h"

enum program { PROGRAM_GENERATE = 1, PROGRAM_VALIDATE = 2, PROGRAM_WORKER = 4 };

enum smtp_security {
	SMTP_TLS_REQUIRED,   /* STARTTLS with a verified certificate, or no mail */
	SMTP_TLS_OFF,        /* plaintext, to loopback relays only */
	SMTP_TLS_OFF_TRUSTED /* plaintext, to whatever relays are configured */
};

/* Strings point into the environment or to defaults and live as long as the process. */
struct config {
	const char *database_url;
	const char *key_dir;
	const char *listen; /* path of the FastCGI socket, "" for fd 0 or LISTEN_FDS */
	const char *app_name;
	const char *email_subject; /* may hold {{app_name}} */
	const char *email_from;    /* "address" or "Name <address>" */
	const char *template_dir;
	const char *smtp_relays; /* "host:port, host:port", in order of preference */
	const char *smtp_user;   /* "" for no AUTH */
	const char *smtp_password_file;
	const char *smtp_ca_file; /* "" for the system's */
	const char *log_level_name;
	const char *smtp_tls_name;
	int expire_minutes;
	int password_length;
	int max_attempts;
	int resend_seconds; /* 0: off, so for the next two */
	int sends_per_hour;
	int sends_per_day;
	int batch_max;
	int queue_max;
	int worker_sessions;
	int messages_per_session;
	int retention_hours;
	int sweep_seconds;
	int sweep_batch;
	enum smtp_security smtp_tls;
	enum log_level log_level;
};

/* What the command line asks for. */
enum config_action {
	CONFIG_RUN,
	CONFIG_CHECK,     /* --check: validate everything, then exit without any side effect */
	CONFIG_EXIT_OK,   /* --help or --version was answered on standard output */
	CONFIG_EXIT_USAGE /* the complaint is on standard error; exit with 2 */
};

/* Reads the arguments of a program; answers --help (made from the table of settings) and --version itself. */
enum config_action config_arguments(enum program program, int argc, char **argv);

/* Fills config from the environment, only the settings that program has (others stay 0 or NULL). On RESULT_INVALID
   every wrong setting has been named on standard error, one line each, with the fix. */
OTP_MUST_CHECK enum result config_read(struct config *config, enum program program);

/* One relay of SMTP_RELAYS. */
struct config_relay {
	char host[254]; /* a name, an IPv4 address, or an IPv6 address without its brackets */
	char port[6];
	bool is_loopback; /* localhost, 127.0.0.0/8 or ::1 */
};

/* Takes the next relay off list, which moves on; at the end of the list host is "". RESULT_INVALID, list unmoved, if
   what comes next is not "host:port" or "[IPv6]:port". */
OTP_MUST_CHECK enum result config_next_relay(const char **list, struct config_relay *relay);

/* "otp-generate" and so on. */
const char *config_program_name(enum program program);

#endif
