/* file.h: whole files that people wrote. */
#ifndef OTP_FILE_H
#define OTP_FILE_H

#include <stddef.h>

/* The bytes of the file, with a NUL behind them, for free(). NULL with errno set; EFBIG: it is longer than max. */
char *file_read(const char *path, size_t max, size_t *length);

#endif
