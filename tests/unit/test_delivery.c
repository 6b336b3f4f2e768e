/* test_delivery.c: the rules of delivery without a relay: whose fault a reply is, backoff, the order of relays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "mail/deliver.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_reply.h"

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

static void test_whose_fault(void **state)
{
	static const int final[] = {501, 510, 511, 521, 550, 551, 552, 553, 554, 556, 571};
	static const int ours[] = {0, 250, 354, 421, 450, 451, 452, 500, 502, 503, 504, 530, 534, 535, 538};
	const int policy[3] = {5, 7, 1};
	const int unknown[3] = {5, 1, 1};
	struct smtp_reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++) {
		reply = reply_of(final[i], none, "text");
		assert_true(smtp_reply_refuses_recipient(&reply));
		reply = reply_of(final[i], unknown, "text");
		assert_true(smtp_reply_refuses_recipient(&reply));
		reply = reply_of(final[i], policy, "relay access denied");
		assert_false(smtp_reply_refuses_recipient(&reply));
		/* libesmtp leaves the triplet in the text if ENHANCEDSTATUSCODES was not offered. */
		reply = reply_of(final[i], none, "5.7.1 relay access denied");
		assert_false(smtp_reply_refuses_recipient(&reply));
	}
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		reply = reply_of(ours[i], none, "text");
		assert_false(smtp_reply_refuses_recipient(&reply));
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

/* In order of preference; one that failed lately comes last, and first again once it has cooled down. */
static void test_relay_order(void **state)
{
	struct smtp_relays relays = {.count = 3};
	bool tried[SETTINGS_RELAYS_MAX] = {false};

	(void)state;
	assert_ptr_equal(smtp_relays_choose(&relays, tried, 1000), &relays.relay[0]);
	relays.relay[0].retry_at_ms = 2000;
	assert_ptr_equal(smtp_relays_choose(&relays, tried, 1000), &relays.relay[1]);
	tried[1] = true;
	assert_ptr_equal(smtp_relays_choose(&relays, tried, 1000), &relays.relay[2]);
	tried[2] = true;
	assert_ptr_equal(smtp_relays_choose(&relays, tried, 1000), &relays.relay[0]);
	tried[0] = true;
	assert_null(smtp_relays_choose(&relays, tried, 1000));
	memset(tried, 0, sizeof(tried));
	assert_ptr_equal(smtp_relays_choose(&relays, tried, 2000), &relays.relay[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reply_text),
	    cmocka_unit_test(test_reply_mask_A12),
	    cmocka_unit_test(test_reply_mask_at_the_cut_A12),
	    cmocka_unit_test(test_whose_fault),
	    cmocka_unit_test(test_positive),
	    cmocka_unit_test(test_backoff),
	    cmocka_unit_test(test_relay_order),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
