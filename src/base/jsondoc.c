/* jsondoc.c: JSON documents, read strictly, and JSON strings, written (jansson). */
#include "base/jsondoc.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void jsondoc_start(void)
{
	json_object_seed(0); /* from the system's random source */
}

/* In words that quote nothing of the document, which may hold a code. */
static const char *explain(enum json_error_code code)
{
	switch (code) {
	case json_error_duplicate_key:
		return "a name stands twice in an object";
	case json_error_numeric_overflow:
		return "a number is too large";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "a string holds the character U+0000";
	case json_error_invalid_utf8:
		return "a string is not UTF-8";
	case json_error_premature_end_of_input:
		return "it ends too early";
	case json_error_end_of_input_expected:
		return "something follows the object";
	default:
		return "it is not valid JSON";
	}
}

enum result jsondoc_parse(struct json_t **document, const char *bytes, size_t length,
			  char reason[static JSONDOC_REASON_BYTES])
{
	static const char byte_order_mark[] = "\xEF\xBB\xBF";
	size_t skipped = length >= 3 && memcmp(bytes, byte_order_mark, 3) == 0 ? 3 : 0;
	json_error_t error;
	/* An integer of any length is a number that nobody reads. */
	json_t *root =
	    json_loadb(bytes + skipped, length - skipped, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);

	if (json_is_object(root)) {
		*document = root;
		return RESULT_OK;
	}
	if (root != NULL)
		(void)snprintf(reason, JSONDOC_REASON_BYTES, "it must be a JSON object");
	else
		(void)snprintf(reason, JSONDOC_REASON_BYTES, "%s, at line %d, column %d",
			       explain(json_error_code(&error)), error.line, error.column);
	json_decref(root);
	return RESULT_INVALID;
}

void jsondoc_free(struct json_t *document)
{
	json_decref(document);
}

enum jsondoc_type jsondoc_type(const struct json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return JSONDOC_OBJECT;
	case JSON_ARRAY:
		return JSONDOC_ARRAY;
	case JSON_STRING:
		return JSONDOC_STRING;
	case JSON_INTEGER:
	case JSON_REAL:
		return JSONDOC_NUMBER;
	case JSON_TRUE:
	case JSON_FALSE:
		return JSONDOC_BOOLEAN;
	case JSON_NULL:
		break;
	}
	return JSONDOC_NULL;
}

const struct json_t *jsondoc_member(const struct json_t *object, const char *name)
{
	return json_object_get(object, name);
}

const char *jsondoc_text(const struct json_t *object, const char *name, size_t *length)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_string(value))
		return NULL;
	*length = json_string_length(value);
	return json_string_value(value);
}

void jsondoc_members(const struct json_t *object, void (*visit)(void *, const char *, const struct json_t *),
		     void *context)
{
	json_t *mutable = (json_t *)(uintptr_t)object; /* the library's iterators know no const */

	for (void *at = json_object_iter(mutable); at != NULL; at = json_object_iter_next(mutable, at))
		visit(context, json_object_iter_key(at), json_object_iter_value(at));
}

size_t jsondoc_count(const struct json_t *container)
{
	return json_is_object(container) ? json_object_size(container) : json_array_size(container);
}

const struct json_t *jsondoc_element(const struct json_t *array, size_t i)
{
	return json_array_get(array, i);
}

const char *jsondoc_string(const struct json_t *string)
{
	return json_string_value(string);
}

double jsondoc_number(const struct json_t *number)
{
	return json_number_value(number);
}

bool jsondoc_is_true(const struct json_t *value)
{
	return json_is_true(value);
}

bool jsondoc_put_string(struct text *text, const char *string)
{
	json_t *value = json_string(string);
	char *quoted = json_dumps(value, JSON_ENCODE_ANY);

	if (quoted != NULL)
		text_put(text, quoted);
	json_decref(value);
	free(quoted);
	return quoted != NULL;
}
