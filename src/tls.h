/* tls.h: how a mail relay proves who it is: a TLS context for one host. */
#ifndef OTP_TLS_H
#define OTP_TLS_H

#include <stdbool.h>

struct tls;
struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

/* Accepts certificates for this host (a name or an IPv4 address) only, by these authorities ("": the system's). NULL:
   they cannot be read. */
struct tls *tls_new(const char *host, const char *ca_file);
void tls_free(struct tls *tls);

/* For smtp_starttls_set_ctx, which counts its reference. */
struct ssl_ctx_st *tls_context(const struct tls *tls);

/* Before a session: forgets the last failure. */
void tls_begin(struct tls *tls);

/* The session cannot be trusted any more, for this reason (static): its handshake will fail. */
void tls_distrust(struct tls *tls, const char *reason);

/* Why the handshake failed; "": it did not. */
const char *tls_failure(const struct tls *tls);

/* ssl: OpenSSL's SSL *. Was its peer's certificate verified, host included? */
bool tls_is_verified(const void *ssl);

#endif
