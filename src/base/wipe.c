/* wipe.c: what the program, or a library in it, gives back to the heap is wiped first. */
#include "base/wipe.h"

#ifdef OTP_SANITIZERS

/* AddressSanitizer has a heap of its own, which knows nothing of blocks that others free. */
void wipe_freed_memory(void)
{
}

#else

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define STEP 1024U
#define LARGEST 1048576U /* larger blocks are mappings of their own, which free gives back to the system */

typedef void free_function(void *memory);

static free_function *next_free;

void wipe_freed_memory(void)
{
	void *found = dlsym(RTLD_NEXT, "free");

	(void)mallopt(M_MMAP_THRESHOLD, LARGEST);
	memcpy(&next_free, &found, sizeof(found)); /* C has no cast from an object to a function */
}

/* In steps so short that the C library stores vectors: rep stosb starts slowly, and profilers count every byte of it.
 */
static void wipe(unsigned char *memory, size_t size)
{
	for (; size > STEP; size -= STEP, memory += STEP)
		explicit_bzero(memory, STEP);
	explicit_bzero(memory, size);
}

void free(void *memory)
{
	int saved = errno;
	size_t size;

	if (memory == NULL)
		return;
	if (next_free == NULL)
		wipe_freed_memory();
	size = malloc_usable_size(memory);
	if (size <= LARGEST) /* to wipe a block of 2 GB that nobody has touched would take seconds */
		wipe(memory, size);
	next_free(memory);
	errno = saved;
}

void *realloc(void *memory, size_t size)
{
	size_t usable;
	void *moved;

	if (memory == NULL)
		return malloc(size);
	usable = malloc_usable_size(memory);
	if (size <= usable && size > usable / 2)
		return memory;
	moved = size > 0 ? malloc(size) : NULL;
	if (moved == NULL && size > 0)
		return NULL;
	if (moved != NULL)
		memcpy(moved, memory, size < usable ? size : usable);
	free(memory);
	return moved;
}

#endif
