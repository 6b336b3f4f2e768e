/* complaint.h: what is wrong with something that a person wrote, a setting or a file, in one form with the fix. */
#ifndef OTP_COMPLAINT_H
#define OTP_COMPLAINT_H

/* From now on every complaint is a line "program: place: fix" on standard error: at the start of a program, and in
   --check, a person reads it. program: static. */
void complaint_start(const char *program);

/* From now on every complaint is an event "configuration_refused" in the log: the program runs. */
void complaint_to_log(void);

#define COMPLAINT_PLACE_BYTES 4200U /* a path of the longest kind, and more */

/* place: what is wrong, such as "EMAIL_FROM=nobody" or "/etc/otpd/templates/en/mail.txt:3"; untrusted bytes are shown
   as
   '?'. fix: why, and what to do. Neither may hold a secret. */
__attribute__((format(printf, 2, 3))) void complain(const char *place, const char *fix, ...);

#endif
