/* budget.c: how many mails an hour an application, and a recipient domain, may cause in all (per process). */
#include "http/budget.h"

#include <stdlib.h>

#include "base/log.h"
#include "otp/bucket.h"

struct budget {
	int per_domain;
	uint64_t quiet_until_ms; /* about one that is spent */
	struct buckets *applications;
	struct buckets *domains;
};

struct budget *budget_new(int per_domain)
{
	struct budget *budget = calloc(1, sizeof(*budget));

	if (budget == NULL)
		return NULL;
	budget->per_domain = per_domain;
	budget->applications = buckets_new();
	budget->domains = buckets_new();
	if (budget->applications != NULL && budget->domains != NULL)
		return budget;
	budget_free(budget);
	return NULL;
}

void budget_free(struct budget *budget)
{
	if (budget == NULL)
		return;
	buckets_free(budget->applications);
	buckets_free(budget->domains);
	free(budget);
}

static void report_spent(struct budget *budget, const struct budget_claim *claim, uint64_t now_ms)
{
	if (log_is_due(&budget->quiet_until_ms, now_ms))
		log_event(LOG_ERROR, "budget_exhausted", LOG_TEXT("application", claim->application),
			  LOG_NUMBER("per_hour", claim->per_hour));
}

enum result budget_take(struct budget *budget, const struct budget_claim *claim, uint64_t now_ms, int *retry_after)
{
	*retry_after = buckets_take(budget->domains, claim->domain, budget->per_domain, now_ms);
	if (*retry_after > 0)
		return RESULT_LIMITED;
	*retry_after = buckets_take(budget->applications, claim->application, claim->per_hour, now_ms);
	if (*retry_after == 0)
		return RESULT_OK;
	buckets_put_back(budget->domains, claim->domain, budget->per_domain, now_ms);
	report_spent(budget, claim, now_ms);
	return RESULT_UNAVAILABLE;
}

void budget_put_back(struct budget *budget, const struct budget_claim *claim, uint64_t now_ms)
{
	buckets_put_back(budget->domains, claim->domain, budget->per_domain, now_ms);
	buckets_put_back(budget->applications, claim->application, claim->per_hour, now_ms);
}
