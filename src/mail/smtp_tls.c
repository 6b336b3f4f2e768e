/* smtp_tls.c: TLS to a mail relay that has proven who it is. The only file that knows OpenSSL. */
#include "mail/smtp_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"

struct smtp_tls {
	SSL_CTX *context;
	char host[254];
	bool is_name; /* not an address: SNI is sent */
};

/* Bytes on their way in one direction. */
struct flow {
	char bytes[16384];
	size_t start;
	size_t end;
};

struct smtp_tls_link {
	SSL *ssl;
	int socket;
	struct flow from_relay;
	struct flow to_relay;
};

/* --- Rules --- */

static bool set_rules(struct smtp_tls *tls, const char *ca_file)
{
	SSL_CTX *context = tls->context;
	X509_VERIFY_PARAM *rules = SSL_CTX_get0_param(context);
	bool is_ok = SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1;

	if (tls->is_name)
		is_ok = is_ok && X509_VERIFY_PARAM_set1_host(rules, tls->host, 0) == 1;
	else
		is_ok = is_ok && X509_VERIFY_PARAM_set1_ip_asc(rules, tls->host) == 1;
	if (ca_file[0] != '\0')
		is_ok = is_ok && SSL_CTX_load_verify_locations(context, ca_file, NULL) == 1;
	else
		is_ok = is_ok && SSL_CTX_set_default_verify_paths(context) == 1;
	X509_VERIFY_PARAM_set_hostflags(rules,
					X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return is_ok;
}

struct smtp_tls *smtp_tls_new(const char *host, const char *ca_file)
{
	struct smtp_tls *tls = calloc(1, sizeof(*tls));
	struct in6_addr address;

	if (tls == NULL || strlen(host) >= sizeof(tls->host))
		goto refuse;
	memcpy(tls->host, host, strlen(host) + 1);
	tls->is_name = inet_pton(AF_INET, host, &address) != 1 && inet_pton(AF_INET6, host, &address) != 1;
	tls->context = SSL_CTX_new(TLS_client_method());
	if (tls->context != NULL && set_rules(tls, ca_file))
		return tls;
refuse:
	smtp_tls_free(tls);
	return NULL;
}

void smtp_tls_free(struct smtp_tls *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->context);
	free(tls);
}

/* --- Handshake --- */

/* Why a handshake failed: what is wrong with the certificate, else the last thing that OpenSSL complained of. */
static const char *find_reason(const SSL *ssl)
{
	long verdict = SSL_get_verify_result(ssl);
	const char *other = ERR_reason_error_string(ERR_peek_last_error());

	if (verdict != X509_V_OK)
		return X509_verify_cert_error_string(verdict);
	return other != NULL ? other : "connection lost during the handshake";
}

/* Waits for what OpenSSL waits for. false: it does not, or there is no time left. */
static bool wait_handshake(const SSL *ssl, int result, int socket, uint64_t deadline_ms)
{
	int wanted = SSL_get_error(ssl, result);
	struct pollfd ready = {.fd = socket, .events = wanted == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
	uint64_t now_ms = clock_boot_ms();

	if ((wanted != SSL_ERROR_WANT_READ && wanted != SSL_ERROR_WANT_WRITE) || now_ms >= deadline_ms)
		return false;
	return poll(&ready, 1, (int)(deadline_ms - now_ms)) > 0 || errno == EINTR;
}

static bool handshake(const struct smtp_tls *tls, SSL *ssl, int socket, uint64_t deadline_ms)
{
	int result;

	if (SSL_set_fd(ssl, socket) != 1 || (tls->is_name && SSL_set_tlsext_host_name(ssl, tls->host) != 1))
		return false;
	while ((result = SSL_connect(ssl)) != 1)
		if (!wait_handshake(ssl, result, socket, deadline_ms))
			return false;
	return SSL_get_verify_result(ssl) == X509_V_OK;
}

struct smtp_tls_link *smtp_tls_begin(struct smtp_tls *tls, int socket, uint64_t deadline_ms, const char **reason)
{
	struct smtp_tls_link *link = calloc(1, sizeof(*link));
	SSL *ssl = SSL_new(tls->context);

	ERR_clear_error();
	*reason = "out of memory";
	if (link != NULL && ssl != NULL) {
		link->ssl = ssl;
		link->socket = socket;
		if (handshake(tls, ssl, socket, deadline_ms))
			return link;
		*reason = clock_boot_ms() >= deadline_ms ? "no reply in time" : find_reason(ssl);
	}
	SSL_free(ssl);
	free(link);
	return NULL;
}

void smtp_tls_end(struct smtp_tls_link *link)
{
	SSL_free(link->ssl);
	explicit_bzero(link, sizeof(*link));
	free(link);
}

void smtp_tls_describe(const struct smtp_tls_link *link, char text[static SMTP_TLS_PROOF_BYTES])
{
	X509 *certificate = SSL_get0_peer_certificate(link->ssl);
	struct tm end = {.tm_year = 0};

	if (certificate == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
		end.tm_mday = 0;
	(void)snprintf(text, SMTP_TLS_PROOF_BYTES, "%s, certificate until %04d-%02d-%02d", SSL_get_version(link->ssl),
		       end.tm_year + 1900, end.tm_mon + 1, end.tm_mday);
}

/* --- Carrying --- */

static bool is_empty(const struct flow *flow)
{
	return flow->start == flow->end;
}

static void take(struct flow *flow, size_t count)
{
	flow->start += count;
	if (is_empty(flow))
		flow->start = flow->end = 0;
}

/* Is a failed SSL_read or SSL_write only early? */
static bool is_early(const SSL *ssl, int result)
{
	int wanted = SSL_get_error(ssl, result);

	return wanted == SSL_ERROR_WANT_READ || wanted == SSL_ERROR_WANT_WRITE;
}

/* Both directions, as far as they go without waiting. false: one end is closed. */
static bool from_relay(struct smtp_tls_link *link, int local)
{
	struct flow *flow = &link->from_relay;

	for (;;) {
		ssize_t sent;

		if (is_empty(flow)) {
			int got = SSL_read(link->ssl, flow->bytes, sizeof(flow->bytes));

			if (got <= 0)
				return is_early(link->ssl, got);
			flow->end = (size_t)got;
		}
		sent = send(local, flow->bytes + flow->start, flow->end - flow->start, MSG_NOSIGNAL);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		take(flow, (size_t)sent);
	}
}

static bool to_relay(struct smtp_tls_link *link, int local)
{
	struct flow *flow = &link->to_relay;

	for (;;) {
		int sent;

		if (is_empty(flow)) {
			ssize_t got = recv(local, flow->bytes, sizeof(flow->bytes), 0);

			if (got <= 0)
				return got < 0 && (errno == EAGAIN || errno == EINTR);
			flow->end = (size_t)got;
		}
		sent = SSL_write(link->ssl, flow->bytes + flow->start, (int)(flow->end - flow->start));
		if (sent <= 0)
			return is_early(link->ssl, sent);
		take(flow, (size_t)sent);
	}
}

void smtp_tls_carry(struct smtp_tls_link *link, int local)
{
	for (;;) {
		struct pollfd ready[2] = {{.fd = link->socket}, {.fd = local}};

		ERR_clear_error();
		if (!from_relay(link, local) || !to_relay(link, local))
			break;
		/* What is full is not read on; OpenSSL may want to read or write for the other direction. */
		ready[0].events = (short)(POLLIN | (is_empty(&link->to_relay) ? 0 : POLLOUT));
		ready[1].events = is_empty(&link->from_relay) ? 0 : POLLOUT;
		if (is_empty(&link->to_relay))
			ready[1].events |= POLLIN;
		if (!is_empty(&link->from_relay))
			ready[0].events = (short)(ready[0].events & ~POLLIN);
		if (poll(ready, 2, -1) < 0 && errno != EINTR)
			break;
	}
	(void)SSL_shutdown(link->ssl);
	(void)shutdown(local, SHUT_RDWR);
}
