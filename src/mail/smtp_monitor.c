/* smtp_monitor.c: what is said before the first mail of a session, as far as libesmtp does not tell. */
#include "mail/smtp_monitor.h"

#include <stdio.h>
#include <string.h>

static bool starts_with(const char *text, size_t length, const char *word)
{
	return length >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

/* Keeps the first refusal: what comes after it is its consequence. */
static void on_refusal(struct smtp_monitor *monitor, const char *bytes, size_t length)
{
	static const int no_triplet[3];
	char text[SMTP_REPLY_BYTES];

	if (monitor->heard.code != 0 || length < 4 || bytes[1] < '0' || bytes[1] > '9' || bytes[2] < '0' ||
	    bytes[2] > '9')
		return;
	(void)snprintf(text, sizeof(text), "%.*s", (int)length - 4, bytes + 4);
	smtp_reply_set(&monitor->heard, (bytes[0] - '0') * 100 + (bytes[1] - '0') * 10 + bytes[2] - '0', no_triplet,
		       text);
}

bool smtp_monitor_received(struct smtp_monitor *monitor, char *bytes, size_t length)
{
	if (monitor->has_begun || length == 0)
		return true;
	smtp_offers_read(&monitor->offers, bytes, length);
	if (monitor->is_logging_in && starts_with(bytes, length, "235"))
		monitor->is_logged_in = true;
	if (bytes[0] == '4' || bytes[0] == '5')
		on_refusal(monitor, bytes, length);
	/* libesmtp would try the next mechanism with the same password, and then MAIL without a login. */
	monitor->is_login_refused = monitor->is_logging_in && !monitor->is_logged_in && monitor->heard.code != 0;
	return !monitor->is_login_refused;
}

/* The relay offers a login, but none that libesmtp has taken up. */
static void refuse_mechanisms(struct smtp_monitor *monitor)
{
	char text[SMTP_REPLY_BYTES];

	monitor->is_login_refused = true;
	if (monitor->heard.code != 0)
		return;
	(void)snprintf(text, sizeof(text), "login: the relay offers %s only, and the worker knows PLAIN and LOGIN",
		       monitor->offers.mechanisms);
	smtp_reply_say(&monitor->heard, text);
}

bool smtp_monitor_sends(struct smtp_monitor *monitor, const char *bytes, size_t length)
{
	static const char *const steps[] = {"EHLO", "HELO", "AUTH", "MAIL"};

	if (monitor->has_begun)
		return true;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (starts_with(bytes, length, steps[i]))
			monitor->step = steps[i];
	if (starts_with(bytes, length, "EHLO"))
		monitor->offers.mechanisms[0] = '\0';
	monitor->is_logging_in = monitor->is_logging_in || starts_with(bytes, length, "AUTH ");
	monitor->has_begun = starts_with(bytes, length, "MAIL ");
	/* The relay knows no EHLO, which is no refusal. */
	if (starts_with(bytes, length, "HELO "))
		monitor->heard.code = 0;
	if (!monitor->has_begun || !monitor->needs_login || monitor->is_logged_in ||
	    monitor->offers.mechanisms[0] == '\0')
		return true;
	refuse_mechanisms(monitor);
	return false;
}
