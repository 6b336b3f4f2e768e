/* log.h: one JSON line per event on standard error, never a secret. */
#ifndef OTP_LOG_H
#define OTP_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
#define LOG_LEVELS 4

/* "error" and so on, by level. */
extern const char *const log_level_names[LOG_LEVELS];

/* One field of an event: a string when text is set, a number otherwise. */
struct log_field {
	const char *key;
	const char *text;
	long long number;
};

/* A function, so that an array may be passed without a warning that its address is never NULL. */
static inline const char *log_text_or_empty(const char *text)
{
	return text != NULL ? text : "";
}

/* The versions of clang-format disagree about a brace that opens a macro. */
/* clang-format off */
#define LOG_TEXT(key_, text_) {.key = (key_), .text = log_text_or_empty(text_)}
#define LOG_NUMBER(key_, number_) {.key = (key_), .number = (number_)}
/* clang-format on */

/* Writes {"time","level","program","event",fields...} as one line and one write(2). Text may be untrusted: it is
   escaped and cut at 512 bytes; a line never exceeds 4096. Secrets are the caller's to keep out; addresses go through
   log_mask_address. */
#define log_event(level, event, ...) log_write((level), (event), (const struct log_field[]){__VA_ARGS__, {.key = NULL}})
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* program: the static name in every line; events above level are dropped. Nobody waits for a reader of standard error:
   a line that cannot be written at once is counted, and "log_lines_dropped" says how many there were. */
void log_start(const char *program, enum log_level level);

/* After all descriptors but the standard ones were closed. */
void log_reopen(void);

/* For a line that says the same again and again: may it be written? *quiet_until_ms is 0 at first; then it keeps the
   line to once a minute of the clock that now_ms is from. */
bool log_is_due(uint64_t *quiet_until_ms, uint64_t now_ms);

/* Is this level written? For callers that would have to compute fields. */
int log_enabled(enum log_level level);

/* "jane.doe@example.com" -> "j***@example.com" into out (cut to fit, NUL-terminated); returns out. */
#define LOG_MASKED_BYTES 280
const char *log_mask_address(const char *address, char out[static LOG_MASKED_BYTES]);

#endif
