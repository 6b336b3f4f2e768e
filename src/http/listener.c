/* listener.c: the socket on which a responder is called, from a path, from fd 0, or from the supervisor. */
#include "http/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define BACKLOG 4096
#define LOCK_TRIES 20
#define LOCK_PAUSE_MS 5
#define FIRST_PASSED_FD 3

static enum result fail(const char *what, const char *path)
{
	log_event(LOG_ERROR, "listen_failed", LOG_TEXT("step", what), LOG_TEXT("path", path),
		  LOG_TEXT("reason", strerror(errno)));
	return RESULT_FAULT;
}

static bool is_listening(int fd)
{
	int listening = 0;
	socklen_t size = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

static enum result adopt(int *listener)
{
	const char *count = getenv("LISTEN_FDS");
	const char *pid = getenv("LISTEN_PID");
	bool passed =
	    count != NULL && strtol(count, NULL, 10) >= 1 && pid != NULL && strtol(pid, NULL, 10) == (long)getpid();
	int fd = passed ? FIRST_PASSED_FD : STDIN_FILENO;

	if (!is_listening(fd)) {
		log_event(LOG_ERROR, "listen_failed",
			  LOG_TEXT("reason", "no listening socket in LISTEN_FDS or on fd 0: set LISTEN to a path"));
		return RESULT_INVALID;
	}
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return fail("fcntl", "");
	*listener = fd;
	return RESULT_OK;
}

/* Locks the folder of path: between a look at whose the path is and its removal no successor may take it over. Returns
   a descriptor to close, or -1 where the folder cannot be locked soon, which leaves that moment open: whoever else
   holds a lock on it must not keep us from starting or ending. */
static int lock_folder(const char *path)
{
	char folder[sizeof((struct sockaddr_un *)NULL)->sun_path] = ".";
	const char *slash = strrchr(path, '/');
	int fd;

	if (slash != NULL && (size_t)(slash - path) + 2 <= sizeof(folder))
		(void)snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - path), path);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int try = 0; fd >= 0 && try < LOCK_TRIES; try++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		(void)poll(NULL, 0, LOCK_PAUSE_MS);
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Moves the bound socket to its path. */
static int take_path(const char *from, const char *path)
{
	int lock = lock_folder(path);
	int status = rename(from, path);

	if (lock >= 0)
		close(lock);
	return status;
}

static enum result bind_path(int fd, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s.%ld", path, (long)getpid()) >=
	    (int)sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return fail("bind", path);
	}
	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return fail("bind", address.sun_path);
	if (chmod(address.sun_path, 0660) == 0 && listen(fd, BACKLOG) == 0 && take_path(address.sun_path, path) == 0)
		return RESULT_OK;
	unlink(address.sun_path);
	return fail("listen", path);
}

enum result listener_open(const char *path, int *listener)
{
	enum result result;
	int fd;

	if (path[0] == '\0')
		return adopt(listener);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail("socket", path);
	result = bind_path(fd, path);
	if (result == RESULT_OK)
		*listener = fd;
	else
		close(fd);
	return result;
}

/* A successor may have taken the path over: SO_PEERCRED of a connected unix socket names the process that called
   listen(2), so a probe tells whose it is. */
void listener_unlink(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int lock, probe;

	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path) + 1);
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return;
	lock = lock_folder(path);
	if (connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    getsockopt(probe, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == getpid())
		unlink(path);
	if (lock >= 0)
		close(lock);
	close(probe);
}
