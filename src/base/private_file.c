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

static const char acl_name[] = "system.posix_acl_access";

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
	ssize_t size = fgetxattr(fd, acl_name, &acl, sizeof(acl));
	size_t count;

	if (size < (ssize_t)sizeof(acl.version) || le32toh(acl.version) != ACL_VERSION)
		return false;
	count = ((size_t)size - sizeof(acl.version)) / sizeof(acl.entries[0]);
	for (size_t i = 0; i < count; i++)
		if (!entry_allows_only_us(&acl.entries[i]))
			return false;
	return true;
}

static bool is_own_group(gid_t group)
{
	gid_t groups[64];
	int count = getgroups(sizeof(groups) / sizeof(groups[0]), groups);

	for (int i = 0; i < count; i++)
		if (groups[i] == group)
			return true;
	return group == getegid();
}

static bool is_private(int fd, const struct stat *status)
{
	if ((status->st_mode & 077) == 0)
		return true;
	if ((status->st_mode & 037) != 0 || status->st_uid != 0)
		return false;
	/* With an ACL, the group's bits are its mask. */
	return fgetxattr(fd, acl_name, NULL, 0) > 0 ? acl_allows_only_us(fd) : is_own_group(status->st_gid);
}

static enum result read_open(int fd, void *bytes, size_t size, size_t *length, const char **reason)
{
	struct stat status;
	ssize_t count;

	*reason = "is not a regular file";
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return RESULT_INVALID;
	*reason = "can be read or written by others: chmod 0400; where an orchestrator mounts it as root's: mode "
		  "0440 with the program's own group (Kubernetes: fsGroup and defaultMode 0440)";
	if (!is_private(fd, &status))
		return RESULT_INVALID;
	*reason = "is too long";
	if (status.st_size > (off_t)size)
		return RESULT_INVALID;
	*reason = "cannot be read";
	count = read(fd, bytes, size);
	*length = count < 0 ? 0 : (size_t)count;
	return count < 0 ? RESULT_INVALID : RESULT_OK;
}

/* O_NONBLOCK: a pipe in its place must not hang us. */
static int open_file(int folder, const char *path, int flags, const char **reason)
{
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);

	if (fd >= 0)
		return fd;
	*reason = errno == ENOENT  ? "no such file"
		  : errno == ELOOP ? "is a link: put the file itself there"
				   : "cannot be opened: check its owner and mode";
	return -1;
}

enum result private_file_read(int folder, const char *path, void *bytes, size_t size, size_t *length,
			      const char **reason)
{
	int fd = open_file(folder, path, 0, reason);
	enum result result;

	if (fd < 0)
		return errno == ENOENT ? RESULT_UNAVAILABLE : RESULT_INVALID;
	result = read_open(fd, bytes, size, length, reason);
	(void)close(fd);
	return result;
}

/* Is the file its folder's owner's, or root's? A hard link may have brought somebody else's. */
static bool is_owners(int folder, int fd)
{
	struct stat outer, inner;

	return fstat(folder, &outer) == 0 && fstat(fd, &inner) == 0 &&
	       (inner.st_uid == outer.st_uid || inner.st_uid == 0);
}

enum result private_file_read_foreign(int folder, const char *name, void *bytes, size_t size, size_t *length,
				      const char **reason)
{
	int fd = open_file(folder, name, O_NOFOLLOW, reason);
	enum result result = RESULT_INVALID;

	if (fd < 0)
		return errno == ENOENT ? RESULT_UNAVAILABLE : RESULT_INVALID;
	if (is_owners(folder, fd))
		result = read_open(fd, bytes, size, length, reason);
	else
		*reason = "does not belong to the owner of its folder";
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
