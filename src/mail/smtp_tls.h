/* smtp_tls.h: TLS to a mail relay that has proven who it is. */
#ifndef OTP_SMTP_TLS_H
#define OTP_SMTP_TLS_H

#include <stdint.h>

struct smtp_tls;      /* what is asked of one host */
struct smtp_tls_link; /* a connection to it */

/* Accepts certificates for this host (a name or an address) only, by these authorities ("": the system's). NULL: they
   cannot be read. */
struct smtp_tls *smtp_tls_new(const char *host, const char *ca_file);
void smtp_tls_free(struct smtp_tls *tls);

/* Handshakes on a connected socket that does not block, TLS 1.2 at least, until deadline_ms (CLOCK_BOOTTIME). NULL:
   failed, and *reason (static) says why. The socket stays the caller's. */
struct smtp_tls_link *smtp_tls_begin(struct smtp_tls *tls, int socket, uint64_t deadline_ms, const char **reason);
void smtp_tls_end(struct smtp_tls_link *link);

/* Which version of TLS it is, and until when the certificate holds. */
#define SMTP_TLS_PROOF_BYTES 64U
void smtp_tls_describe(const struct smtp_tls_link *link, char text[static SMTP_TLS_PROOF_BYTES]);

/* Carries bytes between the relay and a local socket until either is closed; then the other is told. */
void smtp_tls_carry(struct smtp_tls_link *link, int local);

#endif
