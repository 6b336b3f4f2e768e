/* file.c: whole files that people wrote. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

char *file_read(const char *path, size_t max, size_t *length)
{
	char *text = malloc(max + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t got = 0;
	ssize_t n = -1;
	int error;

	if (text == NULL || fd < 0)
		goto out;
	/* A byte more than there may be: it is kept as the NUL. */
	while (got <= max && (n = read(fd, text + got, max + 1 - got)) > 0)
		got += (size_t)n;
	if (n >= 0 && got > max) {
		errno = EFBIG;
		n = -1;
	}
out:
	error = errno;
	if (fd >= 0)
		(void)close(fd);
	if (n < 0) {
		free(text);
		errno = error;
		return NULL;
	}
	text[got] = '\0';
	*length = got;
	return text;
}
