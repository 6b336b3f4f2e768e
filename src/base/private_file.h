/* private_file.h: files that hold a secret: read only if nobody else can. */
#ifndef OTP_PRIVATE_FILE_H
#define OTP_PRIVATE_FILE_H

#include <stddef.h>

#include "base/result.h"

/* Reads a regular file, by its path from an open folder (AT_FDCWD: the current one), into size bytes. Refuses one that
   others may touch, or that is longer. Others are not: who is let in by an ACL entry for our user alone (systemd's
   credentials), and our own group reading a file of root's (Kubernetes' fsGroup). Links are followed, as orchestrators
   hand secrets over by links. RESULT_UNAVAILABLE: there is no such file. Unless RESULT_OK, *reason is a static text for
   a person. The caller wipes bytes. */
OTP_MUST_CHECK enum result private_file_read(int folder, const char *path, void *bytes, size_t size, size_t *length,
					     const char **reason);

/* The same for a file in a folder of somebody else's, who may have put anything there: it must be no link, and belong
   to the folder's owner or to root. */
OTP_MUST_CHECK enum result private_file_read_foreign(int folder, const char *name, void *bytes, size_t size,
						     size_t *length, const char **reason);

/* Reads one line of text (such as a password), its line end removed; size includes the NUL. RESULT_INVALID after a
   complaint that names the file. */
OTP_MUST_CHECK enum result private_file_read_line(const char *path, char *text, size_t size);

#endif
