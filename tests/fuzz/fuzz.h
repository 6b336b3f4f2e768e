/* fuzz.h: what all fuzz targets share. Each is one program of libFuzzer's; tests/fuzz/run builds and runs them. */
#ifndef OTP_FUZZ_H
#define OTP_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build, unlike assert(3). */
#define FUZZ_ASSERT(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			(void)fprintf(stderr, "%s:%d: not: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The input, taken apart from the front. */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* 0 at its end. */
static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return *input->at++;
}

/* What comes before the next separator, cut to fit, NUL-terminated; its length. */
static inline size_t fuzz_text(struct fuzz_input *input, char separator, char *out, size_t size)
{
	const uint8_t *end = memchr(input->at, separator, input->left);
	size_t length = end != NULL ? (size_t)(end - input->at) : input->left;
	size_t kept = length < size ? length : size - 1;

	memcpy(out, input->at, kept);
	out[kept] = '\0';
	input->at += length + (end != NULL);
	input->left -= length + (end != NULL);
	return kept;
}

#endif
