/* text.h: text that grows in a fixed buffer. */
#ifndef OTP_TEXT_H
#define OTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* NUL-terminated at any time. What does not fit is left out whole, and nothing is added after it: is_full stays set
   until text_cut. The buffer is the caller's, as is its wiping. */
struct text {
	char *bytes;
	size_t size;   /* of the buffer, the NUL included; at least 1 */
	size_t length; /* of the text */
	bool is_full;
};

void text_init(struct text *text, char *bytes, size_t size);
void text_put_bytes(struct text *text, const char *bytes, size_t count);
void text_put(struct text *text, const char *string);
__attribute__((format(printf, 2, 3))) void text_printf(struct text *text, const char *format, ...);

/* Takes the text back to a former length. */
void text_cut(struct text *text, size_t length);

#endif
