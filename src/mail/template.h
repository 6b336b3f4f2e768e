/* template.h: a text of the mail with placeholders: parsed once, filled for each mail. */
#ifndef OTP_TEMPLATE_H
#define OTP_TEMPLATE_H

#include <stddef.h>

#include "base/text.h"

/* What a template may name, as {{app_name}} and so on. */
enum template_value {
	TEMPLATE_APP_NAME,
	TEMPLATE_CODE,
	TEMPLATE_MINUTES,
	TEMPLATE_REQUESTED_AT,
	TEMPLATE_REFERENCE,
	TEMPLATE_PURPOSE,
	TEMPLATE_RECIPIENT,
	TEMPLATE_HEADING,
	TEMPLATE_DAY,
	TEMPLATE_MONTH,
	TEMPLATE_YEAR,
	TEMPLATE_HOUR,
	TEMPLATE_MINUTE,
	TEMPLATE_VALUES
};

/* What it is for decides which values it may name and must name, and whether it is one line. */
enum template_kind {
	TEMPLATE_OF_SUBJECT,
	TEMPLATE_OF_HEADING,
	TEMPLATE_OF_DATE,
	TEMPLATE_OF_PLAIN,
	TEMPLATE_OF_HTML /* values are escaped */
};

struct template;

/* Parses length untrusted bytes. name: of the file or setting, for complaints. NULL: refused, with the line and the
   fix. Free with template_free. */
struct template *template_parse(enum template_kind kind, const char *name, const char *source, size_t length);
void template_free(struct template *template);

/* Fills the placeholders, adding to out. Values that the kind may not name may be NULL. */
void template_fill(const struct template *template, const char *const values[TEMPLATE_VALUES], struct text *out);

/* Complains of a line of a file; line 0: of the file as a whole. */
void template_complain(const char *name, size_t line, const char *reason);

#endif
