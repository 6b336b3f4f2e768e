/* budget.h: how many mails an hour an application, and a recipient domain, may cause in all (per process). */
#ifndef OTP_BUDGET_H
#define OTP_BUDGET_H

#include <stdint.h>

#include "base/result.h"

struct budget;

/* NULL: out of memory. per_domain: mails an hour to one recipient domain; 0: no limit. */
struct budget *budget_new(int per_domain);
void budget_free(struct budget *budget);

/* What one mail takes. */
struct budget_claim {
	const char *application;
	int per_hour; /* of the application; 0: no limit */
	const char *domain;
};

/* RESULT_LIMITED: the domain has had its share; RESULT_UNAVAILABLE: the application has, which is logged as an error
   once a minute. *retry_after: the seconds after which there is some again. */
OTP_MUST_CHECK enum result budget_take(struct budget *budget, const struct budget_claim *claim, uint64_t now_ms,
				       int *retry_after);

/* There was no mail after all. */
void budget_put_back(struct budget *budget, const struct budget_claim *claim, uint64_t now_ms);

#endif
