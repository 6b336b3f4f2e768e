/* wipe.h: what the program, or a library in it, gives back to the heap is wiped first. */
#ifndef OTP_WIPE_H
#define OTP_WIPE_H

/* Codes and tokens pass through buffers of libfcgi, jansson, libpq and libesmtp. wipe.c defines free and realloc, which
   stand in front of the C library's for all of them; a call of this one makes the linker take it along. (The C
   library's own M_PERTURB leaves blocks of up to a kilobyte as they are: they go to the thread's cache first.) */
void wipe_freed_memory(void);

#endif
