/* test_address.c: which addresses are accepted, where their mail goes (A10), and which spellings are one (A9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "otp/address.h"

#define LOCAL64 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg"
#define LABEL63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

static const struct valid {
	const char *text, *recipient, *mailbox;
} valid[] = {
    {"user@example.com", "user@example.com", "user@example.com"},
    {"  user@example.com\t", "user@example.com", "user@example.com"},
    {"User.Name@Example.COM", "User.Name@example.com", "user.name@example.com"},
    {"user+tag@example.com", "user+tag@example.com", "user@example.com"},
    {"User+a+b@example.com", "User+a+b@example.com", "user@example.com"},
    {"+tag@example.com", "+tag@example.com", "+tag@example.com"},
    {"+A+B@example.com", "+A+B@example.com", "+a+b@example.com"},
    {"u+@example.com", "u+@example.com", "u@example.com"},
    {"a.+x@example.com", "a.+x@example.com", "a.@example.com"},
    {"!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*@example.com"},
    {"a@b.c", "a@b.c", "a@b.c"},
    {"1@2.c3", "1@2.c3", "1@2.c3"},
    {"u@sub-domain.ex--ample.co.uk", "u@sub-domain.ex--ample.co.uk", "u@sub-domain.ex--ample.co.uk"},
    {"u@3com.com", "u@3com.com", "u@3com.com"},
    {"u@1.2.3.com", "u@1.2.3.com", "u@1.2.3.com"},
    {LOCAL64 "@example.com", LOCAL64 "@example.com", LOCAL64 "@example.com"},
    {"u@" LABEL63 ".com", "u@" LABEL63 ".com", "u@" LABEL63 ".com"},
    {"u@b\303\274cher.de", "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    {"u@B\xC3\x9C"
     "CHER.de",
     "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    {"u@xn--bcher-kva.de", "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    {"u@XN--Bcher-KVA.de", "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    {"u@fa\xC3\x9F.de", "u@xn--fa-hia.de", "u@xn--fa-hia.de"}, /* not fass.de */
    {"u@\xE4\xB8\xAD\xE5\x9B\xBD.\xE4\xB8\xAD\xE5\x9B\xBD", "u@xn--fiqs8s.xn--fiqs8s", "u@xn--fiqs8s.xn--fiqs8s"},
    /* Cyrillic letters that look like "apple" go to their own domain. */
    {"u@\xD0\xB0\xD1\x80\xD1\x80\xD3\x8F\xD0\xB5.com", "u@xn--80ak6aa92e.com", "u@xn--80ak6aa92e.com"},
    {"u@ex\xD0\xB0mple.com", "u@xn--exmple-4nf.com", "u@xn--exmple-4nf.com"},
    /* Dots where a dot-string has none: quoted on the way, whoever quoted it. */
    {"abc..def@docomo.ne.jp", "\"abc..def\"@docomo.ne.jp", "abc..def@docomo.ne.jp"},
    {"\"abc..def\"@docomo.ne.jp", "\"abc..def\"@docomo.ne.jp", "abc..def@docomo.ne.jp"},
    {".abc@ezweb.ne.jp", "\".abc\"@ezweb.ne.jp", ".abc@ezweb.ne.jp"},
    {"ABC.@Docomo.NE.jp", "\"ABC.\"@docomo.ne.jp", "abc.@docomo.ne.jp"},
    {"\"Jane.Doe+x\"@example.com", "Jane.Doe+x@example.com", "jane.doe@example.com"},
    /* What stands around it and shows nothing. */
    {"\xE2\x80\x8Buser@example.com\xE2\x80\xAE", "user@example.com", "user@example.com"},
    {"\xC2\xA0\xEF\xBB\xBFuser@example.com\xE3\x80\x80\r\n\x0C", "user@example.com", "user@example.com"},
    {"\xE2\x81\xA6user@example.com\xE2\x81\xA9\xEF\xBC\x8D", "user@example.com", "user@example.com"},
    /* Full-width signs. */
    {"user\357\274\240example\343\200\202com", "user@example.com", "user@example.com"},
    {"user@example\357\274\216co\357\275\241jp", "user@example.co.jp", "user@example.co.jp"},
    {"user@\xE4\xBE\x8B\xE3\x80\x82jp", "user@xn--fsq.jp", "user@xn--fsq.jp"},
    /* A decomposed letter. */
    {"u@bu\xCC\x88\x63her.de", "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    {"u@BU\xCC\x88\x43HER.de", "u@xn--bcher-kva.de", "u@xn--bcher-kva.de"},
    /* Legal in DNS, whatever IDNA would make. */
    {"u@xn--i-7iq.ws", "u@xn--i-7iq.ws", "u@xn--i-7iq.ws"},
    {"u@XN--A.com", "u@xn--a.com", "u@xn--a.com"},
    {"u@xn--99999999999.com", "u@xn--99999999999.com", "u@xn--99999999999.com"},
    /* What the provider ignores. */
    {"J.ane.Doe+x@GMail.com", "J.ane.Doe+x@gmail.com", "janedoe@gmail.com"},
    {"jane.doe@googlemail.com", "jane.doe@googlemail.com", "janedoe@gmail.com"},
    {"\"j..d\"@gmail.com", "\"j..d\"@gmail.com", "jd@gmail.com"},
    {"...@gmail.com", "\"...\"@gmail.com", "...@gmail.com"},
    {"Jane_Doe-x.y@proton.me", "Jane_Doe-x.y@proton.me", "janedoexy@proton.me"},
    {"j.d@mail.gmail.com", "j.d@mail.gmail.com", "j.d@mail.gmail.com"},
};

static const char *const invalid[] = {
    "",
    " ",
    "@",
    "user",
    "user@",
    "@example.com",
    "user@localhost",
    "user@.com",
    "user@example.",
    "user@example.com.",
    "user@example..com",
    "user@.example.com",
    "a@b@c.com",
    "a@@b.com",
    "user@exa_mple.com",
    "user@-example.com",
    "user@example-.com",
    "user@example.com-",
    "user@exa mple.com",
    "us er@example.com",
    "user @example.com",
    "user@ example.com",
    "user@127.0.0.1",
    "user@example.123",
    "user@[127.0.0.1]",
    "user@[IPv6:::1]",
    "\"us er\"@example.com",
    "\"a@b\"@example.com",
    "user(comment)@example.com",
    "user@example.com(comment)",
    "(c)user@example.com",
    "<user@example.com>",
    "User <user@example.com>",
    "mailto:user@example.com",
    "user@example.com,other@example.com",
    "user@example.com;other@example.com",
    "user@example.com other@example.com",
    "user\\@example.com",
    "us\\er@example.com",
    "user@exam%ple.com",
    "user@example.com/x",
    "user@example.com:25",
    "user@example.com?x",
    "user@exam!ple.com",
    LOCAL64 "a@example.com",
    "u@" LABEL63 "a.com",
    "j\xC3\xB6rg@example.com",     /* no SMTPUTF8 */
    "user@\xEF\xBD\x85xample.com", /* full-width e */
    /* Pairs that change as many characters there and back. */
    "user@\xEF\xBD\x81\xC3\xBC.com",         /* full-width a with another letter */
    "user@\xEF\xAC\x81\xC2\xAD\xC3\xBC.com", /* ligature fi and soft hyphen */
    "user@\xE2\x84\xAA\xC3\xBC.com",         /* Kelvin sign */
    "user@\xE2\x84\xAB.com",                 /* Angstrom sign */
    "user@\xE2\x84\xA6x.com",                /* Ohm sign */
    "user@\xEF\xA4\x80.com",                 /* a compatibility ideograph */
    "\"us\"er\"@example.com",
    "\"\"@example.com",
    "\"@example.com",
    "\"us\\er\"@example.com",
    "us\357\274\216er@example.com", /* full-width dot before the @ */
    "user@example\342\200\244com",  /* one dot leader */
    "user@exam\xC2\xADple.com",     /* soft hyphen */
    "user@b\303\274ch\302\255er.de",
    "user@exam\xE2\x80\x8Bple.com", /* zero-width space */
    "user@b\303\274\342\200\213cher.de",
    "user@exam\xE2\x80\x8Dple.com", /* zero-width joiner */
    "user@\xEF\xAC\x81x.de",        /* ligature fi */
    "user@\xC3\xA9\xEF\xAC\x81x.de",
    "user@\xE2\x84\x80.com",      /* a/c in one character */
    "user@\342\204\252elvin.com", /* Kelvin sign */
    "user@\342\200\256moc.com",   /* right-to-left override */
    "user@b\374cher.de",          /* Latin-1 */
    "user@b\xC3.de",
    "user@\xC0\xAE.de",
    "user@\xED\xA0\x80.de",
    "user@xn--.com",
    "user@xn--example-.com",
    "user@-\xC3\xBC.de",
    "user@\xC3\xBC-.de",
    "user@ab--\xC3\xBC.de",
    "user@\xC3\xBC..de",
    "user@\xC3\xBC",
    "user@a_\xC3\xBC.de",
    "user@a \xC3\xBC.de",
    "user@\xC3\xBC.123",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *reason; /* of the last refusal */

static enum result parse(struct address *address, const char *text)
{
	return address_parse(address, text, strlen(text), &reason);
}

static void valid_addresses_are_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(valid); i++) {
		struct address address;
		if (parse(&address, valid[i].text) != RESULT_OK)
			fail_msg("refused: %s", valid[i].text);
		assert_string_equal(address.recipient, valid[i].recipient);
		assert_string_equal(address.mailbox, valid[i].mailbox);
		assert_non_null(strstr(valid[i].text, address.given));
		assert_null(strpbrk(address.given, " \t\r\n"));
		assert_true(address_is_recipient(address.recipient));
	}
}

static void a10_invalid_addresses_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(invalid); i++) {
		struct address address, before;
		memset(&address, 0x5A, sizeof(address));
		before = address;
		if (parse(&address, invalid[i]) != RESULT_INVALID)
			fail_msg("accepted: %s as %s", invalid[i], address.recipient);
		assert_memory_equal(&address, &before, sizeof(address));
	}
}

/* What follows a NUL is no part of a C string: such a spelling would be counted whole and mailed cut. */
static void refuse_a_tail(const char *domain)
{
	for (int at_end = 0; at_end < 2; at_end++) {
		struct address address;
		char text[80];
		int length = at_end ? snprintf(text, sizeof(text), "user@%s%c.a17.example", domain, '\0')
				    : snprintf(text, sizeof(text), "user@a.%s%cx", domain, '\0');
		assert_int_equal(address_parse(&address, text, (size_t)length, &reason), RESULT_INVALID);
	}
}

static void a10_no_control_byte_passes_anywhere(void **state)
{
	(void)state;
	static const char *const texts[] = {"user@example.com", "user@b\303\274cher.de"};
	for (size_t i = 0; i < COUNT(texts); i++) {
		size_t length = strlen(texts[i]);
		for (size_t place = 0; place <= length; place++) {
			for (int byte = 0; byte < 0x21; byte++) {
				struct address address;
				char text[32];
				bool is_trimmed = byte != 0 && (place == 0 || place == length);
				memcpy(text, texts[i], place);
				text[place] = (char)byte;
				memcpy(text + place + 1, texts[i] + place, length - place);
				assert_int_equal(address_parse(&address, text, length + 1, &reason),
						 is_trimmed ? RESULT_OK : RESULT_INVALID);
			}
		}
	}
	static const char *const hostile[] = {"user@example.com\r\nRCPT TO:<other@example.org>",
					      "user@example.com\nBcc: other@example.org",
					      "user\r@example.com",
					      "user@\nexample.com",
					      "us\177er@example.com",
					      "user@exam\x7Fple.com",
					      "user@b\xC3\xBC\r\n.de",
					      "user@b\xC3\xBC\xC2\x85.de"};
	for (size_t i = 0; i < COUNT(hostile); i++) {
		struct address address;
		assert_int_equal(parse(&address, hostile[i]), RESULT_INVALID);
	}
	static const char *const domains[] = {"example.com", "example.xn--p1ai", "xn--bcher-kva.de",
					      "b\303\274cher.de"};
	for (size_t i = 0; i < COUNT(domains); i++)
		refuse_a_tail(domains[i]);
}

static void lengths_hold_at_both_ends(void **state)
{
	(void)state;
	struct address address;
	/* local 60 + @ + domain 193 = 254, then one more */
	char text[600] =
	    "a123456789b123456789c123456789d123456789e123456789f123456789@" LABEL63 "." LABEL63 "." LABEL63 ".d";
	assert_int_equal(strlen(text), 254);
	assert_int_equal(parse(&address, text), RESULT_OK);
	assert_string_equal(address.recipient, text);
	(void)strcat(text, "d");
	assert_int_equal(parse(&address, text), RESULT_INVALID);
	/* A domain of 253 leaves no room for a mailbox; one of 252 just fits. */
	assert_int_equal(parse(&address, "u@" LABEL63 "." LABEL63 "." LABEL63 ".aaaaaaaaaabbbbbbbbbbccccccccccddddddddd"
					 "deeeeeeeeeeffffffffff"),
			 RESULT_OK);
	assert_int_equal(strlen(address.recipient), 254);
	assert_int_equal(parse(&address, "u@" LABEL63 "." LABEL63 "." LABEL63 ".aaaaaaaaaabbbbbbbbbbccccccccccddddddddd"
					 "deeeeeeeeeeffffffffffg"),
			 RESULT_INVALID);
	/* Long text, valid or not, is never read out of bounds. */
	memset(text, 'a', sizeof(text));
	for (size_t length = 200; length < sizeof(text); length++) {
		text[1] = '@';
		text[length - 2] = '.';
		assert_int_equal(address_parse(&address, text, length, &reason), RESULT_INVALID);
		text[length - 2] = 'a';
	}
	/* A U-label is longer than its A-label: "given" has room for it. */
	memcpy(text, "u@", 2);
	for (size_t i = 2; i < 2 + 3 * 50; i += 3)
		memcpy(text + i, "\xE4\xB8\xAD", 3);
	memcpy(text + 152, ".com", 4);
	assert_int_equal(address_parse(&address, text, 156, &reason), RESULT_OK);
	assert_int_equal(strlen(address.given), 156);
}

static void a9_all_spellings_are_one(void **state)
{
	(void)state;
	static const char *const spellings[] = {"jane@b\303\274cher.de",     "JANE@b\303\274cher.de",
						"Jane+1@B\303\234cher.DE",   "jane+@xn--bcher-kva.de",
						"jane+a+b@XN--BCHER-KVA.DE", " jane@xn--bcher-KVA.de "};
	for (size_t i = 0; i < COUNT(spellings); i++) {
		struct address address;
		assert_int_equal(parse(&address, spellings[i]), RESULT_OK);
		assert_string_equal(address.mailbox, "jane@xn--bcher-kva.de");
	}
}

/* What must hold of every accepted address, whatever the text was. */
static void check_accepted(const struct address *address)
{
	static const char local_bytes[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
					  "!#$%&'*+-/=?^_`{|}~.";
	static const char domain_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	const char *at = strchr(address->recipient, '@');
	assert_non_null(at);
	assert_true(strlen(address->recipient) <= ADDRESS_MAX);
	const char *local = address->recipient + (address->recipient[0] == '"');
	assert_int_equal(strspn(local, local_bytes), at - local - (local != address->recipient));
	assert_int_equal(at[1 + strspn(at + 1, domain_bytes)], '\0');
	assert_non_null(strchr(at, '.'));
	bool is_dot_string = local[0] != '.' && strstr(local, "..") == NULL && strstr(local, ".@") == NULL &&
			     strstr(local, ".\"") == NULL;
	assert_int_equal(local != address->recipient, !is_dot_string);
	assert_null(strstr(at, ".."));
	assert_non_null(memmem(address->given, strlen(address->given), local, (size_t)strspn(local, local_bytes)));
	assert_true(utf8_is_valid(address->given, strlen(address->given)));
	for (const char *byte = address->given; *byte != '\0'; byte++)
		assert_true((unsigned char)*byte > 0x20 && *byte != 0x7F);
	for (const char *byte = address->mailbox; *byte != '\0'; byte++)
		assert_false(*byte >= 'A' && *byte <= 'Z');
	assert_true(strstr(at, "gmail") != NULL || strcmp(strchr(address->mailbox, '@'), at) == 0 ||
		    strcmp(at, "@googlemail.com") == 0);
	struct address again;
	assert_int_equal(parse(&again, address->given), RESULT_OK);
	assert_memory_equal(again.recipient, address->recipient, strlen(address->recipient) + 1);
	assert_int_equal(parse(&again, address->recipient), RESULT_OK);
	assert_string_equal(again.recipient, address->recipient);
	assert_string_equal(again.mailbox, address->mailbox);
	assert_true(address_is_recipient(address->recipient));
}

static void a_refusal_says_which_part_and_why(void **state)
{
	static const struct {
		const char *text, *reason;
	} cases[] = {
	    {"", "no @"},
	    {"jane", "no @"},
	    {"@example.com", "before the @ is empty"},
	    {LOCAL64 "a@example.com", "before the @ is longer than 64 bytes"},
	    {"j\xC3\xB6rg@example.com", "SMTPUTF8"},
	    {"a b@example.com", "a space, a control character or an invisible mark"},
	    {"a\xE2\x80\x8B@example.com", "an invisible mark"},
	    {"\xFF@example.com", "not UTF-8"},
	    {"a(b)@example.com", "before the @ has a character that is not allowed"},
	    {"a@b@example.com", "after the @ is not the name of a domain"},
	    {"a@localhost", "after the @"},
	    {"a@[127.0.0.1]", "after the @"},
	    {"a@example.com.", "after the @"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct address address;

		assert_int_equal(parse(&address, cases[i].text), RESULT_INVALID);
		if (strstr(reason, cases[i].reason) == NULL)
			fail_msg("%s: %s", cases[i].text, reason);
		assert_null(strpbrk(reason, "\"\\"));
	}
}

static void only_a_parsed_form_is_a_recipient(void **state)
{
	(void)state;
	assert_true(address_is_recipient("Jane.Doe+x@xn--bcher-kva.example"));
	assert_true(address_is_recipient("\"a..b\"@docomo.ne.jp"));
	static const char *const others[] = {"",
					     " jane@example.com",
					     "jane@EXAMPLE.com",
					     "jane@b\303\274cher.de",
					     "jane@",
					     "jane@example.com ",
					     "jane",
					     "jane@example.com\r\nDATA",
					     "a@b.c,d@e.f"};
	for (size_t i = 0; i < COUNT(others); i++)
		assert_false(address_is_recipient(others[i]));
}

static unsigned draw(unsigned bound)
{
	static uint32_t seed = 20240607;
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % bound;
}

/* One of: replace, insert, delete a byte, or splice in a piece of another text. */
static size_t mutate(char *text, size_t length, size_t size)
{
	static const char *const pieces[] = {"@",  ".",  "xn--",         "\xC3\xBC",        "\xE3\x80\x82", "+",
					     "\r", "..", "\xE2\x80\x8B", "\xEF\xBD\x85",    "\xD0\xB0",     "-",
					     " ",  "\"", "\xCC\x88",     "\xF0\x9F\x98\x80"};
	const char *piece = pieces[draw(COUNT(pieces))];
	size_t piece_length = strlen(piece), place = draw((unsigned)length + 1);
	switch (draw(3)) {
	case 0:
		if (place < length)
			text[place] = (char)draw(256);
		return length;
	case 1:
		if (place == length)
			return length;
		memmove(text + place, text + place + 1, length - place - 1);
		return length - 1;
	default:
		if (length + piece_length > size)
			return length;
		memmove(text + place + piece_length, text + place, length - place);
		memcpy(text + place, piece, piece_length);
		return length + piece_length;
	}
}

static void a10_mutated_addresses_are_refused_or_sound(void **state)
{
	(void)state;
	unsigned accepted = 0, refused = 0;
	for (int round = 0; round < 300000; round++) {
		struct address address;
		char text[600];
		const char *seed = draw(2) != 0 ? valid[draw(COUNT(valid))].text : invalid[draw(COUNT(invalid))];
		size_t length = strlen(seed);
		memcpy(text, seed, length);
		for (unsigned times = draw(4); times > 0; times--)
			length = mutate(text, length, sizeof(text));
		enum result result = address_parse(&address, text, length, &reason);
		if (result == RESULT_OK) {
			accepted++;
			check_accepted(&address);
		} else {
			refused++;
			assert_int_equal(result, RESULT_INVALID);
		}
	}
	assert_true(accepted > 10000 && refused > 10000); /* the mutations reach both */
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(valid_addresses_are_accepted),
	    cmocka_unit_test(a10_invalid_addresses_are_refused),
	    cmocka_unit_test(a10_no_control_byte_passes_anywhere),
	    cmocka_unit_test(lengths_hold_at_both_ends),
	    cmocka_unit_test(a9_all_spellings_are_one),
	    cmocka_unit_test(a_refusal_says_which_part_and_why),
	    cmocka_unit_test(only_a_parsed_form_is_a_recipient),
	    cmocka_unit_test(a10_mutated_addresses_are_refused_or_sound),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
