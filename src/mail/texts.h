/* texts.h: folders with the mail's texts by language and purpose, loaded once, and which of them a mail gets. */
#ifndef OTP_TEXTS_H
#define OTP_TEXTS_H

#include <stddef.h>

#include "base/result.h"
#include "mail/date_form.h"
#include "mail/template.h"
#include "otp/locale.h"
#include "otp/slug.h"

#define TEXTS_FILE_MAX 16384U /* bytes of one file */

/* The files of one folder; NULL: absent. */
struct texts_files {
	struct template *subject; /* subject.txt */
	struct template *heading; /* heading.txt */
	struct template *plain;   /* mail.txt */
	struct template *html;    /* mail.html */
	struct date_form *date;   /* date.txt */
};

/* LOCALE/ or LOCALE/PURPOSE/. */
struct texts_folder {
	char locale[LOCALE_TAG_BYTES];
	char purpose[SLUG_MAX + 1]; /* "": any */
	struct texts_files files;
};

/* A tree as it is. */
struct texts {
	const char *dir; /* as given to texts_load */
	size_t count;
	struct texts_folder *folder;
};

/* Reads every folder of dir whose name is a language tag, and those in them whose name is a slug. RESULT_INVALID:
   something is wrong with a file (unreadable, too large, not UTF-8, a control byte, a placeholder); each is complained
   of with its line. */
OTP_MUST_CHECK enum result texts_load(struct texts *texts, const char *dir);
void texts_free(struct texts *texts);

#define TEXTS_TREES 2U    /* an application's own and the shared one */
#define TEXTS_LOCALE "en" /* the language that must exist */

/* Both trees as one, with all gaps filled. */
struct texts_choice {
	size_t count;
	size_t languages; /* the first of them are those for any purpose, one for each language */
	size_t fallback;
	struct texts_folder *folder; /* files are the trees' */
};

/* Each file for itself comes from LOCALE/PURPOSE/, else from LOCALE/; from own (empty: none) before shared. So a
   general text of one's own comes before a shared one for the purpose. locale: of mails for which no other is found;
   "": "en". RESULT_INVALID, with complaints: mail.txt or mail.html is missing in a language, or a language that there
   must be. */
OTP_MUST_CHECK enum result texts_merge(struct texts_choice *choice, const struct texts *own, const struct texts *shared,
				       const char *locale);
void texts_choice_free(struct texts_choice *choice);

/* The files of the language that comes closest to what is wanted (as locale.h reads it, or NULL), for that purpose or,
   if there are none, for any. */
const struct texts_files *texts_choose(const struct texts_choice *choice, const char *locale, const char *purpose);

#endif
