/* settings.h: the settings of all programs, what they mean, and how they hang together. */
#ifndef OTP_SETTINGS_H
#define OTP_SETTINGS_H

#include "base/config.h"
#include "base/endpoint.h"
#include "base/log.h"
#include "otp/locale.h"
#include "otp/sender.h"

enum program { PROGRAM_GENERATE = 1, PROGRAM_VALIDATE = 2, PROGRAM_WORKER = 4 };

/* "otp-generate" and so on. */
const char *program_name(enum program program);

enum smtp_security {
	SMTP_TLS_REQUIRED,   /* STARTTLS with a verified certificate, or no mail */
	SMTP_TLS_OFF,        /* plaintext, to loopback relays only */
	SMTP_TLS_OFF_TRUSTED /* plaintext, to whatever relays are configured */
};

#define SETTINGS_RELAYS_MAX 16U

struct settings_relay {
	struct endpoint endpoint;
	bool is_implicit; /* smtps://: TLS from the first byte */
};

/* In order of preference. */
struct settings_relays {
	size_t count;
	struct settings_relay relay[SETTINGS_RELAYS_MAX];
};

/* Texts point into the environment or to defaults and live as long as the process. What a program does not have stays 0
   or NULL. */
struct settings {
	const char *database_url; /* secret */
	const char *key_dir;
	const char *applications; /* path, "" for none */
	const char *listen;       /* path of the FastCGI socket, "" for fd 0 or LISTEN_FDS */
	int batch_max;
	int queue_max;
	int expire_minutes;
	int password_length;
	int max_attempts;
	int resend_seconds; /* 0: off, so for the next two */
	int sends_per_hour;
	int sends_per_day;
	int domain_sends_per_hour;
	int outbox_max;
	int budget_per_hour;
	const char *app_name;
	const char *email_subject; /* with placeholders */
	struct sender email_from;
	struct sender email_reply_to; /* address "": none */
	char locale[LOCALE_BYTES];    /* as locale_read writes it; "" for none */
	const char *template_dir;
	struct settings_relays smtp_relays;
	enum smtp_security smtp_tls;
	const char *smtp_user; /* "" for no AUTH */
	const char *smtp_password_file;
	const char *smtp_ca_file;          /* "" for the system's */
	const char *smtp_helo;             /* "": the domain of email_from */
	char return_path[ADDRESS_MAX + 1]; /* in ASCII; "": the address that a mail is from */
	int worker_sessions;
	int messages_per_session;
	int retention_hours;
	int sweep_seconds;
	int sweep_batch;
	enum log_level log_level;
};

/* As config_read and config_arguments. */
OTP_MUST_CHECK enum result settings_read(struct settings *settings, enum program program);
enum config_action settings_arguments(enum program program, int argc, char **argv);

/* As config_read_value, by the rule of the setting of that name, of whatever program. */
OTP_MUST_CHECK enum result settings_read_value(const char *setting, const char *name, const char *value, void *place);

#endif
