/* template.h: the mail texts by language, loaded once, and the filling of their placeholders. */
#ifndef OTP_TEMPLATE_H
#define OTP_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"
#include "base/text.h"
#include "otp/locale.h"

#define TEMPLATE_FILE_MAX 16384U /* bytes of one file */
#define TEMPLATE_DEFAULT "en"    /* the language that must exist */

/* What a template may name, as {{app_name}} and so on. */
enum template_value { TEMPLATE_APP_NAME, TEMPLATE_CODE, TEMPLATE_MINUTES, TEMPLATE_REQUESTED_AT, TEMPLATE_VALUES };

struct template;

/* One folder of TEMPLATE_DIR: mail.txt, mail.html and, if there is one, subject.txt (in place of EMAIL_SUBJECT). */
struct template_set {
	char locale[LOCALE_TAG_BYTES];
	struct template *subject; /* NULL: none */
	struct template *text;
	struct template *html;
};

/* All languages. */
struct templates {
	size_t count;
	struct template_set *set;
};

/* Reads every folder of dir whose name is a language tag. RESULT_INVALID: something is wrong with a file (missing, too
   large, not UTF-8, a control byte, an unknown placeholder, no {{code}}, no folder "en"); each is complained of
   with its line. */
OTP_MUST_CHECK enum result templates_load(struct templates *templates, const char *dir);
void templates_free(struct templates *templates);

/* The set that comes closest to what is wanted (as locale.h reads it, or NULL); else "en". */
const struct template_set *templates_choose(const struct templates *templates, const char *locale);

/* Parses one line of a setting, such as EMAIL_SUBJECT, where only {{app_name}} is allowed; name is for complaints.
   NULL: refused. Free with template_free. */
struct template *template_parse_line(const char *name, const char *line);
void template_free(struct template *template);

/* Fills the placeholders, adding to out. escape: HTML-escape the values. */
void template_fill(const struct template *template, const char *const values[TEMPLATE_VALUES], bool escape,
		   struct text *out);

#endif
