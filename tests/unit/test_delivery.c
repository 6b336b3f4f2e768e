/* test_delivery.c: the rules of delivery without a relay: whom a refusal means, backoff, the order of relays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "mail/deliver.h"
#include "mail/smtp_offers.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_reply.h"
#include "mail/smtp_verdict.h"

static const int none[3];

static struct smtp_reply reply_of(int code, const int enhanced[3], const char *text)
{
	struct smtp_reply reply;

	smtp_reply_set(&reply, code, enhanced, text);
	return reply;
}

static void test_reply_text(void **state)
{
	const int triplet[3] = {5, 1, 1};
	char lengthy[SMTP_REPLY_BYTES * 2];
	struct smtp_reply reply = reply_of(550, triplet, "<a@b>\r\n no  such\tuser \xC3\xA9\x1b[31m\r\n");

	(void)state;
	assert_string_equal(reply.text, "550 5.1.1 <a@b> no such user ???[31m");
	reply = reply_of(250, none, "");
	assert_string_equal(reply.text, "250");
	memset(lengthy, 'x', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	reply = reply_of(451, none, lengthy);
	assert_int_equal(strlen(reply.text), SMTP_REPLY_BYTES - 1);
	smtp_reply_say(&reply, "  our words\n");
	assert_string_equal(reply.text, "our words");
	assert_int_equal(reply.code, 0);
}

static void test_reply_mask_A12(void **state)
{
	struct smtp_reply reply = reply_of(550, none, "no 123456 here, nor 1234567, 123456");

	(void)state;
	smtp_reply_mask(&reply, "123456");
	assert_string_equal(reply.text, "550 no ****** here, nor ******7, ******");
	smtp_reply_mask(&reply, "");
	assert_string_equal(reply.text, "550 no ****** here, nor ******7, ******");
	reply = reply_of(550, none, "<Jane@Example.com>: unknown");
	smtp_reply_mask(&reply, "jane@example.com");
	assert_string_equal(reply.text, "550 <****************>: unknown");
}

/* What the cut left of a secret at the end of a long reply is masked, too. */
static void test_reply_mask_at_the_cut_A12(void **state)
{
	char text[SMTP_REPLY_BYTES + 16];
	struct smtp_reply reply;

	(void)state;
	for (size_t left = 1; left <= 6; left++) {
		memset(text, 'x', sizeof(text));
		memcpy(text + SMTP_REPLY_BYTES - 1 - strlen("550 ") - left, "123456", strlen("123456") + 1);
		reply = reply_of(550, none, text);
		assert_int_equal(strlen(reply.text), SMTP_REPLY_BYTES - 1);
		smtp_reply_mask(&reply, "123456");
		assert_int_equal(strspn(reply.text + SMTP_REPLY_BYTES - 1 - left, "*"), left);
		assert_int_equal(reply.text[SMTP_REPLY_BYTES - 2 - left], 'x');
	}
}

/* Relays' own words, as they sent them; without ENHANCEDSTATUSCODES libesmtp leaves the enhanced code in the text. */
static const struct {
	enum smtp_verdict verdict;
	int code;
	const char *text;
} words[] = {
    {SMTP_ACCEPTS, 250, "2.1.5 Ok"},
    {SMTP_ACCEPTS, 251, "User not local; will forward"},

    {SMTP_REFUSES_RECIPIENT, 550,
     "5.1.1 <a@b>: Recipient address rejected: User unknown in local recipient table"}, /* Postfix */
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.2 <a@b>: Recipient address rejected: Domain not found"},
    {SMTP_REFUSES_RECIPIENT, 556, "5.1.10 <a@b>: Recipient address rejected: Domain b does not accept mail (nullMX)"},
    {SMTP_REFUSES_RECIPIENT, 501, "5.1.3 Bad recipient address syntax"},
    {SMTP_REFUSES_RECIPIENT, 551, "5.1.6 <a@b>: Recipient address rejected: User has moved"},
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.1 The email account that you tried to reach does not exist."}, /* Gmail */
    {SMTP_REFUSES_RECIPIENT, 550, "5.2.1 The email account that you tried to reach is inactive."},
    {SMTP_REFUSES_RECIPIENT, 550,
     "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"}, /* Exchange */
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.1 <a@b> User doesn't exist"},                       /* Dovecot */
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.1 No such mailbox"},                                /* Haraka */
    {SMTP_REFUSES_RECIPIENT, 550, "sorry, no mailbox here by that name (#5.1.1)"},         /* qmail */
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.1 <a@b>... User unknown"},                          /* Sendmail */
    {SMTP_REFUSES_RECIPIENT, 550, "5.1.1 unknown or illegal alias: a@b"},                  /* Proofpoint */

    {SMTP_REFUSES_UNCLEARLY, 550, "relay not permitted"}, /* Exim */
    {SMTP_REFUSES_UNCLEARLY, 550, "Administrative prohibition"},
    {SMTP_REFUSES_UNCLEARLY, 550, "Sender verify failed"},
    {SMTP_REFUSES_UNCLEARLY, 550, "Unrouteable address"},
    {SMTP_REFUSES_UNCLEARLY, 550, "Unknown user"},
    {SMTP_REFUSES_UNCLEARLY, 550, "I cannot deliver mail for a@b"}, /* Haraka */
    {SMTP_REFUSES_UNCLEARLY, 550, "Invalid recipient: <a@b>"},      /* OpenSMTPD: also when relaying is denied */
    {SMTP_REFUSES_UNCLEARLY, 550, "5.1.0 <a@b>: Recipient address rejected: undeliverable address"}, /* Postfix */
    {SMTP_REFUSES_UNCLEARLY, 550,
     "5.4.1 Recipient address rejected: Access denied. AS(201806281)"}, /* Exchange Online */
    {SMTP_REFUSES_UNCLEARLY, 550,
     "5.5.0 Requested action not taken: mailbox unavailable (S2017062302)"},                         /* Outlook.com */
    {SMTP_REFUSES_UNCLEARLY, 552, "5.2.2 The email account that you tried to reach is over quota."}, /* Gmail */
    {SMTP_REFUSES_UNCLEARLY, 554, "delivery error: dd This user doesn't have a yahoo.com account"},  /* Yahoo */
    {SMTP_REFUSES_UNCLEARLY, 550, "Requested action not taken: mailbox unavailable"},                /* GMX */
    {SMTP_REFUSES_UNCLEARLY, 553, "Requested action not taken: mailbox name not allowed"},
    {SMTP_REFUSES_UNCLEARLY, 554, "Message rejected: Email address is not verified."}, /* Amazon SES */
    {SMTP_REFUSES_UNCLEARLY, 554, "5.6.0 Message contains an attachment that is not allowed"},
    {SMTP_REFUSES_UNCLEARLY, 554, "5.0.0 Service unavailable"},
    {SMTP_REFUSES_UNCLEARLY, 550, "4.1.1 of the wrong class"},
    {SMTP_REFUSES_UNCLEARLY, 550, "5.1. not one"},

    {SMTP_REFUSES_US, 554, "5.7.1 <a@b>: Relay access denied"}, /* Postfix */
    {SMTP_REFUSES_US, 553, "5.7.1 <a@b>: Sender address rejected: not owned by user c@d"},
    {SMTP_REFUSES_US, 550, "5.1.7 <a@b>: Sender address rejected: undeliverable address"},
    {SMTP_REFUSES_US, 550, "5.1.8 <a@b>: Sender address rejected: Domain not found"},
    {SMTP_REFUSES_US, 550, "5.4.5 Daily user sending limit exceeded."}, /* Gmail */
    {SMTP_REFUSES_US, 530, "5.7.0 Must issue a STARTTLS command first."},
    {SMTP_REFUSES_US, 530, "5.7.1 Authentication required"},
    {SMTP_REFUSES_US, 550, "5.7.26 Unauthenticated email from d is not accepted due to domain's DMARC policy."},
    {SMTP_REFUSES_US, 550, "5.7.60 SMTP; Client does not have permissions to send as this sender"}, /* Exchange */
    {SMTP_REFUSES_US, 550, "5.7.54 SMTP; Unable to relay recipient in non-accepted domain"},
    {SMTP_REFUSES_US, 530, "5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM"},
    {SMTP_REFUSES_US, 550, "5.3.2 STOREDRV.Deliver; system not accepting network messages"},
    {SMTP_REFUSES_US, 550, "5.7.1 Delivery not authorized, message refused"},                  /* Haraka */
    {SMTP_REFUSES_US, 550, "5.7.1 <a@b>... Relaying denied. Proper authentication required."}, /* Sendmail */
    {SMTP_REFUSES_US, 571, "Relaying denied"},
    {SMTP_REFUSES_US, 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"},  /* qmail */
    {SMTP_REFUSES_UNCLEARLY, 550, "The from address does not match a verified Sender Identity."}, /* SendGrid */
    {SMTP_REFUSES_US, 554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"},
    {SMTP_REFUSES_US, 552, "5.3.4 Message size exceeds fixed limit"},
    {SMTP_REFUSES_US, 503, "5.1.1 sender not yet given"}, /* about the protocol, whatever the enhanced code */
    {SMTP_REFUSES_US, 535, "5.7.8 Authentication credentials invalid"},
    {SMTP_REFUSES_US, 521, "5.7.1 This host does not accept mail"},
    {SMTP_REFUSES_US, 550, "5.5.1 Invalid command"},

    {SMTP_REFUSES_FOR_NOW, 450, "4.2.0 <a@b>: Recipient address rejected: Greylisted"}, /* Postgrey */
    {SMTP_REFUSES_FOR_NOW, 451, "4.7.1 Greylisting in action, please come back later"}, /* rspamd */
    {SMTP_REFUSES_FOR_NOW, 454, "4.7.1 <a@b>: Relay access denied"},                    /* Postfix */
    {SMTP_REFUSES_FOR_NOW, 450, "4.1.1 <a@b>: Recipient address rejected: unverified address"},
    {SMTP_REFUSES_FOR_NOW, 454, "Throttling failure: Maximum sending rate exceeded."}, /* Amazon SES */
    {SMTP_REFUSES_FOR_NOW, 452, "4.2.2 The email account that you tried to reach is over quota."},
    {SMTP_REFUSES_FOR_NOW, 354, "go on"},
    {SMTP_REFUSES_FOR_NOW, 0, "connection lost"},
    {SMTP_CLOSES, 421, "4.7.0 Try again later, closing connection."},                    /* Gmail */
    {SMTP_CLOSES, 421, "Too many concurrent SMTP connections; please try again later."}, /* Exim */
};

static void test_verdicts(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct smtp_reply reply = reply_of(words[i].code, none, words[i].text);

		if (smtp_verdict_of(&reply) != words[i].verdict)
			fail_msg("%s: verdict %d, not %d", reply.text, (int)smtp_verdict_of(&reply),
				 (int)words[i].verdict);
	}
}

/* The same verdict when libesmtp has parsed the enhanced code off the text; each 5xx without one is no final word. */
static void test_verdicts_of_codes(void **state)
{
	const int unknown[3] = {5, 1, 1};
	const int policy[3] = {5, 7, 1};
	struct smtp_reply reply = reply_of(550, unknown, "no such user");

	(void)state;
	assert_int_equal(smtp_verdict_of(&reply), SMTP_REFUSES_RECIPIENT);
	reply = reply_of(550, policy, "relay access denied");
	assert_int_equal(smtp_verdict_of(&reply), SMTP_REFUSES_US);
	for (int code = 500; code <= 599; code++) {
		reply = reply_of(code, none, "text");
		assert_int_not_equal(smtp_verdict_of(&reply), SMTP_REFUSES_RECIPIENT);
	}
}

static void test_positive(void **state)
{
	static const int no[] = {0, 199, 300, 354, 450, 550};
	struct smtp_reply reply = reply_of(250, none, "ok");

	(void)state;
	assert_true(smtp_reply_is_positive(&reply));
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
		reply = reply_of(no[i], none, "ok");
		assert_false(smtp_reply_is_positive(&reply));
	}
}

static unsigned lowest(unsigned bound)
{
	assert_true(bound > 0);
	return 0;
}

static unsigned highest(unsigned bound)
{
	return bound - 1;
}

static void test_backoff(void **state)
{
	static const int base[] = {2, 4, 8, 16, 32, 60, 60};

	(void)state;
	for (int i = 0; i < 7; i++) {
		assert_int_equal(deliver_backoff_seconds(i + 1, lowest), base[i] - base[i] / 4);
		assert_int_equal(deliver_backoff_seconds(i + 1, highest), base[i] - base[i] / 4 + base[i] / 2);
	}
	assert_int_equal(deliver_backoff_seconds(1000000, highest), 75);
	assert_true(deliver_backoff_seconds(0, lowest) > 0);
}

/* In order of preference; one in trouble comes last, and first again after its pause. */
static void test_relay_order(void **state)
{
	struct smtp_relays relays = {.count = 3};
	struct smtp_relay *relay = relays.relay;

	(void)state;
	assert_ptr_equal(smtp_relays_choose(&relays, UINT32_MAX, 1000), &relay[0]);
	smtp_relay_note_session(&relay[0], SMTP_TROUBLE_REFUSES, 1000);
	assert_ptr_equal(smtp_relays_choose(&relays, UINT32_MAX, 1000), &relay[1]);
	assert_ptr_equal(smtp_relays_choose(&relays, 5, 1000), &relay[2]);
	assert_ptr_equal(smtp_relays_choose(&relays, 1, 1000), &relay[0]);
	assert_null(smtp_relays_choose(&relays, 0, 1000));
	assert_ptr_equal(smtp_relays_choose(&relays, UINT32_MAX, 2000), &relay[0]);
	assert_ptr_equal(smtp_relays_choose_well(&relays, UINT32_MAX), &relay[1]);
	assert_int_equal(smtp_relays_count_well(&relays, UINT32_MAX), 2);
	assert_int_equal(smtp_relays_count_well(&relays, 3), 1);
	smtp_relay_note_session(&relay[0], SMTP_TROUBLE_NONE, 2000);
	assert_int_equal(smtp_relays_count_well(&relays, UINT32_MAX), 3);
	assert_int_equal(smtp_relays_wait_ms(&relays, 2000), 0);
}

/* A pause doubles up to five minutes; without another relay it is at most ten seconds, unless the login is refused. */
static void test_relay_pauses(void **state)
{
	static const struct {
		enum smtp_trouble trouble;
		uint64_t longest_ms;
	} cases[] = {{SMTP_TROUBLE_REFUSES, 0}, {SMTP_TROUBLE_AWAY, 10000}, {SMTP_TROUBLE_LOGIN, 300000}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct smtp_relays relays = {.count = 1};
		struct smtp_relay *relay = relays.relay;
		uint64_t pause_ms = 1000;

		for (int times = 0; times < 12; times++) {
			uint64_t alone_ms = pause_ms < cases[i].longest_ms ? pause_ms : cases[i].longest_ms;

			smtp_relay_note_session(relay, cases[i].trouble, 5000);
			assert_int_equal(relay->retry_at_ms, 5000 + pause_ms);
			assert_int_equal(smtp_relays_wait_ms(&relays, 5000), alone_ms);
			assert_true((smtp_relays_choose(&relays, 1, 5000) == NULL) == (alone_ms > 0));
			assert_ptr_equal(smtp_relays_choose(&relays, 1, 5000 + alone_ms), relay);
			pause_ms = pause_ms * 2 > 300000 ? 300000 : pause_ms * 2;
		}
		smtp_relay_note_session(relay, SMTP_TROUBLE_NONE, 5000);
		assert_int_equal(smtp_relays_wait_ms(&relays, 5000), 0);
		smtp_relay_note_session(relay, SMTP_TROUBLE_AWAY, 5000);
		assert_int_equal(relay->retry_at_ms, 6000);
	}
}

/* Five different recipients in a row; the same one again says nothing new, and one that is accepted ends it. */
static void test_refuses_everybody(void **state)
{
	static const char *const others[] = {"b@example.com", "c@example.com", "d@example.com", "e@example.com"};
	struct smtp_relay relay = {.pause_ms = 0};

	(void)state;
	for (int i = 0; i < 10; i++)
		smtp_relay_note_refused(&relay, "a@example.com");
	for (int i = 0; i < 4; i++) {
		assert_false(smtp_relay_refuses_everybody(&relay));
		smtp_relay_note_refused(&relay, others[i]);
	}
	assert_true(smtp_relay_refuses_everybody(&relay));
	smtp_relay_note_accepted(&relay);
	assert_false(smtp_relay_refuses_everybody(&relay));
}

/* The offers of a relay, as they come: cut anywhere. */
static void test_offers(void **state)
{
	static const char answer[] =
	    "220 relay\r\n250-relay\r\n250-auth XOAUTH2 ntlm PLAIN\r\n250-CHUNKING\r\n250 8BITMIME\r\n";

	(void)state;
	for (size_t cut = 0; cut < sizeof(answer); cut++) {
		struct smtp_offers offers = {.length = 0};
		char bytes[sizeof(answer)];

		memcpy(bytes, answer, sizeof(answer));
		smtp_offers_read(&offers, bytes, cut);
		smtp_offers_read(&offers, bytes + cut, sizeof(answer) - 1 - cut);
		assert_string_equal(offers.mechanisms, "XOAUTH2 ntlm PLAIN");
		assert_string_equal(bytes, "220 relay\r\n250-relay\r\n250-auth XOAUTH2 ntl- PLAIN\r\n250-CHUNKIN-\r\n"
					   "250 8BITMIME\r\n");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reply_text),
	    cmocka_unit_test(test_reply_mask_A12),
	    cmocka_unit_test(test_reply_mask_at_the_cut_A12),
	    cmocka_unit_test(test_verdicts),
	    cmocka_unit_test(test_verdicts_of_codes),
	    cmocka_unit_test(test_positive),
	    cmocka_unit_test(test_backoff),
	    cmocka_unit_test(test_relay_order),
	    cmocka_unit_test(test_relay_pauses),
	    cmocka_unit_test(test_refuses_everybody),
	    cmocka_unit_test(test_offers),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
