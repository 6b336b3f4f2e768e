/* listener.h: the socket on which a responder is called, from a path, from fd 0, or from the supervisor. */
#ifndef OTP_LISTENER_H
#define OTP_LISTENER_H

#include "base/result.h"

/* Gives a listening, non-blocking, close-on-exec socket. path "": LISTEN_FDS (sd_listen_fds(3)), else a listening
   socket on fd 0 (spawn-fcgi). Otherwise a unix socket of mode 0660 is bound under a temporary name and moved to path,
   so that a predecessor there serves on until it is told to stop. Logs what is wrong. */
OTP_MUST_CHECK enum result listener_open(const char *path, int *listener);

/* Takes the socket away from path if it is still ours: nobody can connect any more; who has connected is still served.
 */
void listener_unlink(const char *path);

#endif
