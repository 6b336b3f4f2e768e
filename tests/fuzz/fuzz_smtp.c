/* fuzz_smtp.c: whole SMTP sessions with a relay that says anything: no mail is taken for sent unless its text went out
 * to its end, and nobody's text is in another person's mail. The input: how many mails, then
 * what the relay says. libesmtp is instrumented as well. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fuzz.h"
#include "mail/smtp_send.h"

#define MAILS 4U
#define TURN_MS 1 /* how long the relay waits for a command before it speaks again */

static const char *const recipients[MAILS] = {"a0@b.example", "a1@b.example", "a2@b.example", "a3@b.example"};

static int listener, stop[2];
static struct settings settings;
static struct fuzz_input script;
static char heard[1 << 20]; /* all that the client said, from one connection after the other */
static size_t heard_length;

/* --- The relay --- */

static bool hear(int client, int timeout_ms)
{
	struct pollfd waiting = {.fd = client, .events = POLLIN};
	if (poll(&waiting, 1, timeout_ms) <= 0)
		return true;
	ssize_t got = recv(client, heard + heard_length, sizeof(heard) - 1 - heard_length, 0);
	if (got > 0)
		heard_length += (size_t)got;
	return got > 0;
}

/* Says a line for whatever it hears, or into the silence, and hangs up. */
static void serve(int client)
{
	char line[2048] = "";
	bool is_open = setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0;
	while (is_open && script.left > 0) {
		size_t length = fuzz_text(&script, '\n', line, sizeof(line) - 1);
		if (script.left > 0)
			line[length++] = '\n';
		is_open = send(client, line, length, MSG_NOSIGNAL) == (ssize_t)length &&
			  (line[3] == '-' || hear(client, TURN_MS));
	}
	(void)shutdown(client, SHUT_WR);
	while (is_open)
		is_open = hear(client, -1);
	(void)close(client);
}

static void *run_relay(void *unused)
{
	struct pollfd waiting[2] = {{.fd = listener, .events = POLLIN}, {.fd = stop[0], .events = POLLIN}};
	while (poll(waiting, 2, -1) > 0 && waiting[1].revents == 0)
		serve(accept(listener, NULL, NULL));
	(void)!read(stop[0], &(char){0}, 1);
	return unused;
}

/* The log opens standard error for itself. */
static void silence_log(void)
{
	int kept = dup(STDERR_FILENO), nowhere = open("/dev/null", O_WRONLY);
	(void)dup2(nowhere, STDERR_FILENO);
	log_start("fuzz", LOG_ERROR);
	(void)dup2(kept, STDERR_FILENO);
}

static void prepare(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(address);
	char relay[32];
	listener = socket(AF_INET, SOCK_STREAM, 0);
	FUZZ_ASSERT(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 16) == 0);
	FUZZ_ASSERT(getsockname(listener, (struct sockaddr *)&address, &length) == 0 && pipe(stop) == 0);
	(void)snprintf(relay, sizeof(relay), "127.0.0.1:%d", ntohs(address.sin_port));
	(void)setenv("SMTP_RELAYS", relay, 1);
	(void)setenv("SMTP_TLS", "off", 1);
	(void)setenv("EMAIL_FROM", "otp@example.org", 1);
	(void)setenv("DATABASE_URL", "dbname=otp", 1);
	(void)setenv("KEY_DIR", "/keys", 1);
	FUZZ_ASSERT(settings_read(&settings, PROGRAM_WORKER) == RESULT_OK);
	silence_log();
}

/* --- The client --- */

static enum result compose(void *first, const struct smtp_mail *job, const char **text, size_t *length)
{
	static char mail[4096];
	size_t index = (size_t)(job - (const struct smtp_mail *)first);
	int wrote = snprintf(mail, sizeof(mail), "To: %s\r\n\r\n.\r\n%0*d\r\nmark-%zu\r\n", recipients[index],
			     index % 2 == 0 ? 3000 : 10, 0, index);
	*text = mail;
	*length = (size_t)wrote;
	return RESULT_OK;
}

static bool goes_on(void *unused)
{
	(void)unused;
	return true;
}

/* Between two MAIL commands there is one text at most, and it is to whom RCPT names. -> how many went out whole */
static size_t check_heard(void)
{
	size_t whole = 0;
	heard[heard_length] = '\0';
	for (char *part = strstr(heard, "MAIL FROM:"), *next; part != NULL; part = next) {
		next = strstr(part + 1, "MAIL FROM:");
		if (next != NULL)
			next[-1] = '\0';
		const char *recipient = strstr(part, "RCPT TO:<"), *to = strstr(part, "To: ");
		if (to == NULL)
			continue;
		FUZZ_ASSERT(recipient != NULL && memcmp(recipient + 9, to + 4, strlen(recipients[0])) == 0);
		FUZZ_ASSERT(strstr(to + 1, "To: ") == NULL);
		whole += strstr(to, "\r\n..\r\n") != NULL && strstr(to, "\r\n.\r") != NULL;
	}
	return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct smtp_mail mails[MAILS] = {{.recipient = NULL}};
	const struct smtp_source source = {.context = mails, .compose = compose, .goes_on = goes_on};
	struct smtp_send *smtp = NULL;
	size_t sent = 0;
	pthread_t relay;
	if (settings.smtp_relays.count == 0)
		prepare();
	script = (struct fuzz_input){data, size};
	size_t count = 1 + fuzz_byte(&script) % MAILS;
	for (size_t i = 0; i < count; i++)
		mails[i] = (struct smtp_mail){.sender = "otp@example.org", .recipient = recipients[i]};
	heard_length = 0;
	FUZZ_ASSERT(pthread_create(&relay, NULL, run_relay, NULL) == 0);
	FUZZ_ASSERT(smtp_send_new(&smtp, &settings) == RESULT_OK);
	smtp_send_mails(smtp, mails, count, &source, clock_boot_ms() + 5000);
	smtp_send_free(smtp);
	FUZZ_ASSERT(write(stop[1], "", 1) == 1 && pthread_join(relay, NULL) == 0);
	for (size_t i = 0; i < count; i++)
		sent += mails[i].outcome == SMTP_SENT;
	FUZZ_ASSERT(check_heard() >= sent);
	return 0;
}
