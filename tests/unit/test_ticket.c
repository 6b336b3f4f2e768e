/* test_ticket.c: a ticket holds for its mailbox, its application and its time, and for nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/process.h"
#include "otp/ticket.h"

#define DAY_MS 86400000ULL
#define DAY 20500ULL
#define NOW (DAY * DAY_MS + 12345)
#define APPLICATION "shop"
#define MAILBOX "a@b.example"

static struct key_ring keys;

static int make_keys(void **state)
{
	(void)state;
	keys.count = 2;
	keys.id[0] = 7;
	keys.id[1] = 3;
	for (size_t i = 0; i < KEY_BYTES; i++) {
		keys.key[0][i] = (unsigned char)(100 + i);
		keys.key[1][i] = (unsigned char)(200 - i);
	}
	return 0;
}

static void fixed_random(void *bytes, size_t count)
{
	assert_int_equal(count, 8);
	memset(bytes, 0xC3, count);
}

static enum result read_at(const char *text, size_t length, uint64_t now_ms)
{
	char id[TICKET_ID_TEXT + 1] = "before";
	enum result result = ticket_read(id, &keys, text, length, APPLICATION, MAILBOX, now_ms);

	assert_string_equal(id, result == RESULT_OK ? "c3c3c3c3c3c3c3c3" : "before");
	return result;
}

static void make(char text[static TICKET_TEXT + 1])
{
	ticket_make(text, &keys, APPLICATION, MAILBOX, NOW, fixed_random);
}

static void golden_ticket(void **state)
{
	/* Made with Python: number of the key, day, id, hashlib.blake2b(b"otpd ticket 1" + day + id +
	   b"shop\\0a@b.example", digest_size=24, key=key), by base64.urlsafe_b64encode. */
	char text[TICKET_TEXT + 1];

	(void)state;
	make(text);
	assert_string_equal(text, "AAdQFMPDw8PDw8PDnHvg5JUTfE5gx22fetjMy--0NSEHtOtJ");
	assert_int_equal(read_at(text, TICKET_TEXT, NOW), RESULT_OK);
}

static void a19_a_changed_or_truncated_ticket_is_none(void **state)
{
	char text[TICKET_TEXT + 1], other[TICKET_TEXT + 2];

	(void)state;
	make(text);
	for (size_t place = 0; place < TICKET_TEXT; place++) {
		for (int byte = 0; byte < 256; byte++) {
			memcpy(other, text, sizeof(text));
			other[place] = (char)byte;
			assert_int_equal(read_at(other, TICKET_TEXT, NOW),
					 (char)byte == text[place] ? RESULT_OK : RESULT_INVALID);
		}
	}
	memcpy(other, text, sizeof(text));
	other[TICKET_TEXT] = 'A';
	for (size_t length = 0; length <= TICKET_TEXT + 1; length++)
		assert_int_equal(read_at(other, length, NOW), length == TICKET_TEXT ? RESULT_OK : RESULT_INVALID);
}

static void a19_a_ticket_is_of_its_mailbox_and_application(void **state)
{
	static const struct {
		const char *application, *mailbox;
	} others[] = {{"", MAILBOX},     {"shop2", MAILBOX},      {"sho", "pa@b.example"},
		      {APPLICATION, ""}, {"shopa", "@b.example"}, {APPLICATION, "b@b.example"},
		      {"sho", MAILBOX},  {MAILBOX, APPLICATION}};
	char text[TICKET_TEXT + 1], id[TICKET_ID_TEXT + 1];

	(void)state;
	make(text);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_int_equal(
		    ticket_read(id, &keys, text, TICKET_TEXT, others[i].application, others[i].mailbox, NOW),
		    RESULT_INVALID);
}

static void a19_a_ticket_lives_180_days(void **state)
{
	char text[TICKET_TEXT + 1];

	(void)state;
	make(text);
	assert_int_equal(read_at(text, TICKET_TEXT, (DAY + 181) * DAY_MS - 1), RESULT_OK);
	assert_int_equal(read_at(text, TICKET_TEXT, (DAY + 181) * DAY_MS), RESULT_INVALID);
	assert_int_equal(read_at(text, TICKET_TEXT, (DAY - 1) * DAY_MS), RESULT_OK);
	assert_int_equal(read_at(text, TICKET_TEXT, (DAY - 1) * DAY_MS - 1), RESULT_INVALID);
}

static void keys_rotate(void **state)
{
	char text[TICKET_TEXT + 1];
	struct key_ring before = keys;

	(void)state;
	keys.count = 1;
	keys.id[0] = before.id[1];
	memcpy(keys.key[0], before.key[1], KEY_BYTES);
	make(text); /* under what is the previous key now */
	keys = before;
	assert_int_equal(read_at(text, TICKET_TEXT, NOW), RESULT_OK);
	keys.count = 1;
	assert_int_equal(read_at(text, TICKET_TEXT, NOW), RESULT_INVALID);
	keys.id[0] = before.id[1]; /* the number of the right key, and another key */
	assert_int_equal(read_at(text, TICKET_TEXT, NOW), RESULT_INVALID);
}

static void a19_ids_differ(void **state)
{
	enum { COUNT = 200 };
	static char ids[COUNT][TICKET_ID_TEXT + 1];

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		char text[TICKET_TEXT + 1];

		ticket_make(text, &keys, APPLICATION, MAILBOX, NOW, process_random);
		assert_int_equal(ticket_read(ids[i], &keys, text, TICKET_TEXT, APPLICATION, MAILBOX, NOW), RESULT_OK);
		assert_int_equal(strlen(ids[i]), TICKET_ID_TEXT);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(ids[i], ids[j]);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(golden_ticket, make_keys),
	    cmocka_unit_test_setup(a19_a_changed_or_truncated_ticket_is_none, make_keys),
	    cmocka_unit_test_setup(a19_a_ticket_is_of_its_mailbox_and_application, make_keys),
	    cmocka_unit_test_setup(a19_a_ticket_lives_180_days, make_keys),
	    cmocka_unit_test_setup(keys_rotate, make_keys),
	    cmocka_unit_test_setup(a19_ids_differ, make_keys),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
