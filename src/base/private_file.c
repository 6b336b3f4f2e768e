/* private_file.c: files that hold a secret: read only if nobody else can. */
#include "base/private_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/complaint.h"

/* The layout of a POSIX ACL in its extended attribute (acl(5)); all little-endian. */
struct acl_entry {
	uint16_t tag, permissions;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct acl_entry entries[8];
};

enum { ACL_VERSION = 2, ACL_USER_OBJ = 0x01, ACL_USER = 0x02, ACL_MASK = 0x10 };

static bool entry_allows_only_us(const struct acl_entry *entry)
{
	unsigned tag = le16toh(entry->tag);
	bool is_us = tag == ACL_USER && le32toh(entry->id) == geteuid();

	return tag == ACL_USER_OBJ || tag == ACL_MASK || is_us || entry->permissions == 0;
}

/* systemd may hand a credential over as root's file with an ACL entry that lets the service's user read it. The group
   bits of its mode are then the ACL's mask: nobody but root and this user reads it. */
static bool acl_allows_only_us(int fd)
{
	struct acl acl;
	ssize_t size = fgetxattr(fd, "system.posix_acl_access", &acl, sizeof(acl));
	size_t count;

	if (size < (ssize_t)sizeof(acl.version) || le32toh(acl.version) != ACL_VERSION)
		return false;
	count = ((size_t)size - sizeof(acl.version)) / sizeof(acl.entries[0]);
	for (size_t i = 0; i < count; i++)
		if (!entry_allows_only_us(&acl.entries[i]))
			return false;
	return true;
}

static bool is_private(int fd, const struct stat *status)
{
	if ((status->st_mode & 077) == 0)
		return true;
	return (status->st_mode & 037) == 0 && status->st_uid == 0 && acl_allows_only_us(fd);
}

/* Links are followed, as compose and others hand secrets over by links: what counts is the file behind them.
   O_NONBLOCK: a pipe in its place must not hang us. */
enum result private_file_read(int folder, const char *path, void *bytes, size_t size, size_t *length,
			      const char **reason)
{
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	enum result result = RESULT_INVALID;
	struct stat status;

	if (fd < 0) {
		*reason = errno == ENOENT ? "no such file" : "cannot be opened: check its owner and mode";
		return errno == ENOENT ? RESULT_UNAVAILABLE : RESULT_INVALID;
	}
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
		*reason = "is not a regular file";
	} else if (!is_private(fd, &status)) {
		*reason = "can be read or written by others: chmod 0400";
	} else if (status.st_size > (off_t)size) {
		*reason = "is too long";
	} else {
		ssize_t count = read(fd, bytes, size);

		*length = count < 0 ? 0 : (size_t)count;
		*reason = "cannot be read";
		result = count < 0 ? RESULT_INVALID : RESULT_OK;
	}
	(void)close(fd);
	return result;
}

/* What is wrong with the line, whose end is cut off; NULL: nothing. */
static const char *judge_line(const char *bytes, size_t length, size_t size)
{
	if (length == 0)
		return "is empty";
	if (length >= size)
		return "is too long";
	if (memchr(bytes, '\0', length) != NULL || memchr(bytes, '\n', length) != NULL)
		return "holds more than one line of text";
	return NULL;
}

enum result private_file_read_line(const char *path, char *text, size_t size)
{
	char bytes[1024];
	size_t length = 0;
	const char *reason = NULL;
	enum result result = private_file_read(AT_FDCWD, path, bytes, sizeof(bytes), &length, &reason);

	if (result == RESULT_OK) {
		if (length > 0 && bytes[length - 1] == '\n')
			length--;
		if (length > 0 && bytes[length - 1] == '\r')
			length--;
		reason = judge_line(bytes, length, size);
	}
	if (reason == NULL) {
		memcpy(text, bytes, length);
		text[length] = '\0';
	} else {
		complain(path, "%s", reason);
		result = RESULT_INVALID;
	}
	sodium_memzero(bytes, sizeof(bytes));
	return result;
}
