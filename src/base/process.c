/* process.c: what every program does first to its own process, and the random source. */
#include "base/process.h"

#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/wipe.h"

/* LeakSanitizer looks at the process through ptrace, which an undumpable process forbids. */
#if defined __SANITIZE_ADDRESS__
#define IS_DUMPABLE 1L
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define IS_DUMPABLE 1L
#endif
#endif
#ifndef IS_DUMPABLE
#define IS_DUMPABLE 0L
#endif

static enum result fail(const char *reason)
{
	log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", reason));
	return RESULT_FAULT;
}

enum result process_start(void)
{
	static const struct rlimit none = {0, 0};

	wipe_freed_memory();
	/* The generator that runs in the process, seeded by the kernel: no entropy from a system call per code. A child
	   must not go on with its parent's state. */
	if (randombytes_set_implementation(&randombytes_internal_implementation) != 0 || sodium_init() < 0 ||
	    pthread_atfork(NULL, NULL, randombytes_stir) != 0)
		return fail("libsodium could not be prepared");
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, IS_DUMPABLE, 0L, 0L, 0L) != 0)
		return fail("core dumps could not be forbidden");
	return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? RESULT_FAULT : RESULT_OK;
}

void process_random(void *bytes, size_t count)
{
	randombytes_buf(bytes, count);
}

unsigned process_uniform(unsigned bound)
{
	return randombytes_uniform(bound);
}
