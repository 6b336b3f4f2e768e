/* smtp_verdict.c: whom a relay's refusal means: the recipient, us, or nobody can tell. */
#include "mail/smtp_verdict.h"

#define ANY (-1)

/* By subject and detail of the enhanced code; the first row that fits decides. What is final must say that there is no
   such mailbox or domain: Exim, Postfix and Exchange use everything else for refusals of the client, too. */
static const struct {
	int subject;
	int detail;
	enum smtp_verdict verdict;
} by_enhanced[] = {
    {1, 1, SMTP_REFUSES_RECIPIENT},  /* no such mailbox */
    {1, 2, SMTP_REFUSES_RECIPIENT},  /* no such domain */
    {1, 3, SMTP_REFUSES_RECIPIENT},  /* no address at all */
    {1, 6, SMTP_REFUSES_RECIPIENT},  /* moved */
    {1, 10, SMTP_REFUSES_RECIPIENT}, /* the domain takes no mail (RFC 7505) */
    {2, 1, SMTP_REFUSES_RECIPIENT},  /* disabled */
    {1, 7, SMTP_REFUSES_US},         /* the sender's address */
    {1, 8, SMTP_REFUSES_US},         /* the sender's domain */
    {1, 9, SMTP_REFUSES_US},         /* the sender's domain takes no mail (RFC 7505) */
    {4, 1, SMTP_REFUSES_UNCLEARLY},  /* Exchange Online: no such mailbox, or access denied */
    {4, 4, SMTP_REFUSES_UNCLEARLY},  /* no route */
    {5, 0, SMTP_REFUSES_UNCLEARLY},  /* Outlook.com: no such mailbox */
    {3, ANY, SMTP_REFUSES_US},       /* the relay's state */
    {4, ANY, SMTP_REFUSES_US},       /* network, loops, quotas */
    {5, ANY, SMTP_REFUSES_US},       /* the protocol */
    {7, ANY, SMTP_REFUSES_US},       /* security and policy */
    {ANY, ANY, SMTP_REFUSES_UNCLEARLY},
};

/* For replies without an enhanced code. */
static const int codes_that_mean_us[] = {
    500, 502, 503, 504, /* commands that it does not know or expect */
    521,                /* takes no mail at all (RFC 7504) */
    530, 534, 535, 538, /* login */
    571,                /* Sendmail's "relaying denied" */
};

static enum smtp_verdict verdict_by_enhanced(const int enhanced[static 3])
{
	size_t row = 0;

	while ((by_enhanced[row].subject != ANY && by_enhanced[row].subject != enhanced[1]) ||
	       (by_enhanced[row].detail != ANY && by_enhanced[row].detail != enhanced[2]))
		row++;
	return by_enhanced[row].verdict;
}

static enum smtp_verdict verdict_by_code(int code)
{
	for (size_t i = 0; i < sizeof(codes_that_mean_us) / sizeof(codes_that_mean_us[0]); i++)
		if (code == codes_that_mean_us[i])
			return SMTP_REFUSES_US;
	return SMTP_REFUSES_UNCLEARLY;
}

enum smtp_verdict smtp_verdict_of(const struct smtp_reply *reply)
{
	if (smtp_reply_is_positive(reply))
		return SMTP_ACCEPTS;
	if (reply->code == 421)
		return SMTP_CLOSES;
	if (reply->code < 500 || reply->code > 599)
		return SMTP_REFUSES_FOR_NOW;
	/* A code that means us is believed, whatever its enhanced code says: "503 5.1.1" is no word on the recipient.
	 */
	if (reply->enhanced[0] != 5 || verdict_by_code(reply->code) == SMTP_REFUSES_US)
		return verdict_by_code(reply->code);
	return verdict_by_enhanced(reply->enhanced);
}
