/* failnth.c: preloaded into a program: makes the Nth call of one chosen function fail, as a machine in trouble would.
   FAIL_FUNCTION: the name of one of the functions below; the counting starts when the file FAIL_ARM names appears, its
   content is N (from 1), and a second number, if any, how many calls in a row fail. Each failure is written to
   FAIL_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static const char *function;
static const char *arm;
static const char *journal;
static long fail_at;
static long fail_count;
static long calls;
static int is_armed;

__attribute__((constructor)) static void start(void)
{
	function = getenv("FAIL_FUNCTION");
	arm = getenv("FAIL_ARM");
	journal = getenv("FAIL_LOG");
}

/* Reads "N [count]" without any function that could be under test. */
static int is_ready(void)
{
	char text[32] = "";
	long fd;
	char *end;

	if (is_armed)
		return 1;
	if (arm == NULL || (fd = syscall(SYS_openat, AT_FDCWD, arm, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	if (syscall(SYS_read, fd, text, sizeof(text) - 1) > 0) {
		fail_at = strtol(text, &end, 10);
		fail_count = strtol(end, NULL, 10);
		is_armed = fail_at > 0;
	}
	syscall(SYS_close, fd);
	return is_armed;
}

/* Is it this call's turn to fail? */
static int fails(const char *name)
{
	long fd;
	int saved = errno;
	int yes = 0;

	if (function != NULL && strcmp(function, name) == 0 && is_ready()) {
		calls++;
		yes = calls >= fail_at && calls < fail_at + (fail_count > 0 ? fail_count : 1);
		if (yes && journal != NULL) {
			fd = syscall(SYS_openat, AT_FDCWD, journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
			syscall(SYS_write, fd, "failed\n", 7);
			syscall(SYS_close, fd);
		}
	}
	errno = saved;
	return yes;
}

#define REAL(name)                     \
	static __typeof__(name) *real; \
	if (real == NULL)              \
	real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);

void *malloc(size_t size)
{
	if (fails("malloc")) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	if (fails("calloc")) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(count, size);
}

ssize_t read(int fd, void *buffer, size_t size)
{
	REAL(read);
	if (fails("read")) {
		errno = EIO;
		return -1;
	}
	return real(fd, buffer, size);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
	REAL(recv);
	if (fails("recv")) {
		errno = ECONNRESET;
		return -1;
	}
	return real(fd, buffer, size, flags);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
	REAL(write);
	if (fails("write")) {
		errno = EIO;
		return -1;
	}
	return real(fd, buffer, size);
}

ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
	REAL(send);
	if (fails("send")) {
		errno = EPIPE;
		return -1;
	}
	return real(fd, buffer, size, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	REAL(accept4);
	if (fails("accept4")) {
		errno = EMFILE;
		return -1;
	}
	return real(fd, address, length, flags);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	REAL(epoll_ctl);
	if (fails("epoll_ctl")) {
		errno = ENOMEM;
		return -1;
	}
	return real(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout)
{
	REAL(epoll_wait);
	if (fails("epoll_wait")) {
		errno = EINTR;
		return -1;
	}
	return real(epoll, events, count, timeout);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	REAL(setsockopt);
	if (fails("setsockopt")) {
		errno = ENOMEM;
		return -1;
	}
	return real(fd, level, option, value, length);
}
