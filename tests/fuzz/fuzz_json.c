/* fuzz_json.c: A8: a body is refused with a reason and a place, or all that can be read of it is clean text. */
#include "base/jsondoc.h"
#include "base/utf8.h"
#include "fuzz.h"

#define LONGEST 16384U /* FCGI_BODY_MAX */

static void check_value(const struct json_t *value);

static void check_text(const char *text)
{
	char bytes[6 * LONGEST + 16], reason[JSONDOC_REASON_BYTES];
	struct json_t *again = NULL;
	struct text quoted;
	size_t length = 0;
	FUZZ_ASSERT(utf8_is_valid(text, strlen(text)));
	text_init(&quoted, bytes, sizeof(bytes));
	text_put(&quoted, "{\"a\":");
	FUZZ_ASSERT(jsondoc_put_string(&quoted, text));
	text_put(&quoted, "}");
	FUZZ_ASSERT(!quoted.is_full);
	FUZZ_ASSERT(jsondoc_parse(&again, bytes, quoted.length, reason) == RESULT_OK);
	const char *found = jsondoc_text(again, "a", &length);
	FUZZ_ASSERT(found != NULL && length == strlen(text) && strcmp(found, text) == 0);
	jsondoc_free(again);
}

static void check_member(void *object, const char *name, const struct json_t *value)
{
	size_t length = 0;
	const char *text = jsondoc_text(object, name, &length);
	FUZZ_ASSERT(utf8_is_valid(name, strlen(name)));
	FUZZ_ASSERT(jsondoc_member(object, name) == value);
	FUZZ_ASSERT((text != NULL) == (jsondoc_type(value) == JSONDOC_STRING));
	FUZZ_ASSERT(text == NULL || strlen(text) == length);
	check_value(value);
}

static void check_value(const struct json_t *value)
{
	const char *text = jsondoc_string(value);
	FUZZ_ASSERT((text != NULL) == (jsondoc_type(value) == JSONDOC_STRING));
	if (text != NULL)
		check_text(text);
	for (size_t i = 0; jsondoc_type(value) == JSONDOC_ARRAY && i < jsondoc_count(value); i++)
		check_value(jsondoc_element(value, i));
	if (jsondoc_type(value) == JSONDOC_OBJECT)
		jsondoc_members(value, check_member, (void *)(uintptr_t)value);
	(void)jsondoc_number(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char reason[JSONDOC_REASON_BYTES] = "";
	struct json_t *document = NULL;
	if (size > LONGEST)
		return 0;
	if (jsondoc_parse(&document, (const char *)data, size, reason) == RESULT_OK) {
		FUZZ_ASSERT(jsondoc_type(document) == JSONDOC_OBJECT);
		check_value(document);
	} else {
		bool has_place = strstr(reason, ", at line ") != NULL && strstr(reason, ", column ") != NULL;
		FUZZ_ASSERT(document == NULL);
		FUZZ_ASSERT(has_place || strcmp(reason, "it must be a JSON object") == 0);
		FUZZ_ASSERT(utf8_is_text(reason, strlen(reason), "", NULL));
	}
	jsondoc_free(document);
	return 0;
}
