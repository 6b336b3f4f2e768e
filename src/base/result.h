/* result.h: the closed set of outcomes that every fallible function returns. */
#ifndef OTP_RESULT_H
#define OTP_RESULT_H

#define OTP_MUST_CHECK __attribute__((warn_unused_result))

/* Outputs of a function that returns anything but RESULT_OK are untouched. */
enum result {
	RESULT_OK = 0,
	RESULT_INVALID,     /* the input is wrong; asking again with it is useless */
	RESULT_LIMITED,     /* a limit holds; the same input may pass later */
	RESULT_UNAVAILABLE, /* a peer is away or too slow; nothing was done */
	RESULT_UNKNOWN,     /* the answer was lost: done or not done, nobody can tell */
	RESULT_FAULT        /* a fault of ours: out of memory, a broken rule, a bad answer */
};

/* The outcome's name in logs, such as "unavailable"; never NULL. */
const char *result_name(enum result result);

#endif
