/* smtp_tls.c: how a mail relay proves who it is: a TLS context for one host. The only file that knows OpenSSL. */
#include "mail/smtp_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

struct smtp_tls {
	SSL_CTX *context;
	char host[254];
	bool is_name;        /* not an address: SNI is sent */
	const char *failure; /* static; NULL: none that we know of */
	bool is_distrusted;
};

static struct smtp_tls *tls_of(const SSL *ssl)
{
	return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* Called for each certificate of the chain, by OpenSSL with its own verdict. */
static int on_verify(int is_ok, X509_STORE_CTX *store)
{
	struct smtp_tls *tls = tls_of(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));

	if (tls->is_distrusted) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	if (!is_ok)
		tls->failure = X509_verify_cert_error_string(X509_STORE_CTX_get_error(store));
	return is_ok;
}

/* libesmtp sends no SNI; the handshake's start is the last moment to set it. */
static void on_info(const SSL *ssl, int where, int value)
{
	const struct smtp_tls *tls = tls_of(ssl);

	(void)value;
	if ((where & SSL_CB_HANDSHAKE_START) != 0 && tls->is_name)
		(void)SSL_set_tlsext_host_name((SSL *)ssl, tls->host);
}

/* The host is checked by OpenSSL: libesmtp compares with the canonical name that DNS tells. Protocol 1.2 exactly: with
   1.3 libesmtp takes the session ticket for the announcement of a reply, and waits for it before it has sent its
   command. */
static bool set_rules(struct smtp_tls *tls, const char *ca_file)
{
	SSL_CTX *context = tls->context;
	X509_VERIFY_PARAM *rules = SSL_CTX_get0_param(context);
	bool is_ok = SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
		     SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION) == 1;

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
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
	SSL_CTX_set_info_callback(context, on_info);
	return is_ok && SSL_CTX_set_app_data(context, tls) == 1;
}

struct smtp_tls *smtp_tls_new(const char *host, const char *ca_file)
{
	struct smtp_tls *tls = calloc(1, sizeof(*tls));
	struct in_addr address;

	if (tls == NULL || strlen(host) >= sizeof(tls->host))
		goto refuse;
	memcpy(tls->host, host, strlen(host) + 1);
	tls->is_name = inet_pton(AF_INET, host, &address) != 1;
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

struct ssl_ctx_st *smtp_tls_context(const struct smtp_tls *tls)
{
	return tls->context;
}

void smtp_tls_begin(struct smtp_tls *tls)
{
	ERR_clear_error();
	tls->failure = NULL;
	tls->is_distrusted = false;
}

void smtp_tls_distrust(struct smtp_tls *tls, const char *reason)
{
	tls->is_distrusted = true;
	tls->failure = reason;
}

const char *smtp_tls_failure(const struct smtp_tls *tls)
{
	const char *other = ERR_reason_error_string(ERR_peek_last_error());

	if (tls->failure != NULL)
		return tls->failure;
	return other != NULL ? other : "";
}

bool smtp_tls_is_verified(const void *ssl)
{
	return SSL_get_verify_result(ssl) == X509_V_OK;
}
