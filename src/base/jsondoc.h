/* jsondoc.h: JSON documents, read strictly, and JSON strings, written. */
#ifndef OTP_JSONDOC_H
#define OTP_JSONDOC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"
#include "base/text.h"

struct json_t; /* jansson's */

enum jsondoc_type { JSONDOC_OBJECT, JSONDOC_ARRAY, JSONDOC_STRING, JSONDOC_NUMBER, JSONDOC_BOOLEAN, JSONDOC_NULL };

/* Once, before the first document: names chosen to collide in a hash table shall not. */
void jsondoc_start(void);

/* Parses untrusted bytes: one object, without duplicate names or NUL in any string; a byte order mark in front is
   skipped. RESULT_INVALID with a reason that says where, and quotes nothing of the document. Free with jsondoc_free. */
#define JSONDOC_REASON_BYTES 96U
OTP_MUST_CHECK enum result jsondoc_parse(struct json_t **document, const char *bytes, size_t length,
					 char reason[static JSONDOC_REASON_BYTES]);
void jsondoc_free(struct json_t *document);

/* A value lives as long as its document. */
enum jsondoc_type jsondoc_type(const struct json_t *value);

/* NULL if absent, so for the next one. */
const struct json_t *jsondoc_member(const struct json_t *object, const char *name);

/* A string member and its length; NULL also if it is no string. */
const char *jsondoc_text(const struct json_t *object, const char *name, size_t *length);

/* In the order of the document. context comes first in the calls. */
void jsondoc_members(const struct json_t *object, void (*visit)(void *, const char *, const struct json_t *),
		     void *context);

size_t jsondoc_count(const struct json_t *container); /* members of an object, elements of an array */
const struct json_t *jsondoc_element(const struct json_t *array, size_t i);

const char *jsondoc_string(const struct json_t *string); /* NULL if it is none */
double jsondoc_number(const struct json_t *number);
bool jsondoc_is_true(const struct json_t *value);

/* Adds a JSON string, quotes included. false: not UTF-8, or out of memory; what does not fit shows in text as always.
 */
OTP_MUST_CHECK bool jsondoc_put_string(struct text *text, const char *string);

#endif
