/* smtp_tls.h: how a mail relay proves who it is: a TLS context for one host. */
#ifndef OTP_SMTP_TLS_H
#define OTP_SMTP_TLS_H

#include <stdbool.h>

struct smtp_tls;
struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

/* Accepts certificates for this host (a name or an IPv4 address) only, by these authorities ("": the system's). NULL:
   they cannot be read. */
struct smtp_tls *smtp_tls_new(const char *host, const char *ca_file);
void smtp_tls_free(struct smtp_tls *tls);

/* For smtp_starttls_set_ctx, which counts its reference. */
struct ssl_ctx_st *smtp_tls_context(const struct smtp_tls *tls);

/* Before a session: forgets the last failure. */
void smtp_tls_begin(struct smtp_tls *tls);

/* The session cannot be trusted any more, for this reason (static): its handshake will fail. */
void smtp_tls_distrust(struct smtp_tls *tls, const char *reason);

/* Why the handshake failed; "": it did not. */
const char *smtp_tls_failure(const struct smtp_tls *tls);

/* ssl: OpenSSL's SSL *. Was its peer's certificate verified, host included? */
bool smtp_tls_is_verified(const void *ssl);

#endif
