/* date_form.h: how people of a language write a date and a time. */
#ifndef OTP_DATE_FORM_H
#define OTP_DATE_FORM_H

#include <stddef.h>
#include <time.h>

#include "base/text.h"

struct date_form;

/* Parses length untrusted bytes with LF line ends: a line with {{day}}, {{month}} and so on; below it, if months have
   names, twelve lines with these. name: of the file, for complaints. NULL: refused. Free with date_form_free. */
struct date_form *date_form_parse(const char *name, const char *source, size_t length);
void date_form_free(struct date_form *form);

/* form NULL: "2024-05-03 14:05 UTC". */
void date_form_put(const struct date_form *form, const struct tm *utc, struct text *out);

/* The month, from 0, that takes the most bytes. */
int date_form_longest_month(const struct date_form *form);

#endif
