/* address.c: what an email address is here, and which spellings are one mailbox. */
#include "otp/address.h"

#include <idn2.h>
#include <stdint.h>
#include <string.h>

#include "base/unicode.h"

#define LOCAL_MAX 64U   /* RFC 5321 4.5.3.1.1 */
#define DOMAIN_MAX 253U /* RFC 1035 2.3.4, as text without the root's dot */
#define LABEL_MAX 63U
#define TEXT_MAX (ADDRESS_MAX * 2)

#define FULL_WIDTH_AT 0xFF20U

static bool is_digit(char byte)
{
	return byte >= '0' && byte <= '9';
}

static bool is_alphanumeric(char byte)
{
	return is_digit(byte) || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* By hand: the C library's follows the locale. */
static char lower(char byte)
{
	return (char)(byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte);
}

static void lower_copy(char *out, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		out[i] = lower(text[i]);
	out[length] = '\0';
}

static bool is_ascii(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] >= 0x80)
			return false;
	return true;
}

/* --- The text around and between --- */

/* What may stand around an address: what shows nothing, and dashes that no address can hold. */
static bool is_around(uint32_t character)
{
	return character != '\0' && (unicode_is_blank(character) || (character >= 0x80 && unicode_is_dash(character)));
}

static void trim(const char **text, size_t *length)
{
	uint32_t character = 0;
	size_t step;

	while ((step = unicode_next(*text, *length, &character)) > 0 && is_around(character)) {
		*text += step;
		*length -= step;
	}
	while ((step = unicode_last(*text, *length, &character)) > 0 && is_around(character))
		*length -= step;
}

/* The dots that IDNA takes for one (RFC 3490 3.1). */
static bool is_dot(uint32_t character)
{
	return character == 0x3002 || character == 0xFF0E || character == 0xFF61;
}

/* Copies length bytes with full-width signs in ASCII, NUL-terminated. No byte that ends a text, a line or a word
   somewhere below may take part in what follows: functions get lengths, and the libraries get strings. */
static const char *fold(char folded[static TEXT_MAX + 1], const char *text, size_t length)
{
	bool is_domain = false;
	size_t used = 0;

	while (length > 0) {
		uint32_t character = 0;
		size_t step = unicode_next(text, length, &character);

		if (step == 0)
			return "It is not UTF-8.";
		if (unicode_is_blank(character))
			return "It holds a space, a control character or an invisible mark.";
		if (character == FULL_WIDTH_AT || (is_domain && is_dot(character))) {
			folded[used++] = character == FULL_WIDTH_AT ? '@' : '.';
		} else {
			memcpy(folded + used, text, step);
			used += step;
		}
		is_domain = is_domain || folded[used - 1] == '@';
		text += step;
		length -= step;
	}
	folded[used] = '\0';
	return NULL;
}

/* --- The local part --- */

/* atext of RFC 5322 3.2.3. */
static bool is_local_byte(char byte)
{
	return is_alphanumeric(byte) || (byte != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", byte) != NULL);
}

/* Are the dots where a dot-string of RFC 5321 4.1.2 has them? */
static bool is_dot_string(const char *text, size_t length)
{
	if (text[0] == '.' || text[length - 1] == '.')
		return false;
	for (size_t i = 1; i < length; i++)
		if (text[i] == '.' && text[i - 1] == '.')
			return false;
	return true;
}

/* Judges the local part without its quotes; NULL: it will do. */
static const char *judge_local(const char *text, size_t length)
{
	if (length == 0)
		return "The part before the @ is empty.";
	if (length + (is_dot_string(text, length) ? 0 : 2) > LOCAL_MAX)
		return "The part before the @ is longer than 64 bytes.";
	if (!is_ascii(text, length))
		return "The part before the @ has a letter outside ASCII; such addresses (SMTPUTF8) cannot be mailed.";
	for (size_t i = 0; i < length; i++)
		if (!is_local_byte(text[i]) && text[i] != '.')
			return "The part before the @ has a character that is not allowed there.";
	return NULL;
}

/* --- The domain --- */

/* Letters, digits and inner hyphens (RFC 1123 2.1). */
static bool is_label(const char *text, size_t length)
{
	if (length == 0 || length > LABEL_MAX || text[0] == '-' || text[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_alphanumeric(text[i]) && text[i] != '-')
			return false;
	return true;
}

static enum result idn_result(int code)
{
	if (code == IDN2_OK)
		return RESULT_OK;
	return code == IDN2_MALLOC ? RESULT_FAULT : RESULT_INVALID;
}

/* Does the A-label show this text, to the byte? */
static enum result compare_shown(const char *label, const char *text)
{
	char *shown = NULL;
	enum result result = idn_result(idn2_to_unicode_8z8z(label, &shown, 0));

	if (result == RESULT_OK && strcmp(shown, text) != 0)
		result = RESULT_INVALID;
	idn2_free(shown);
	return result;
}

/* Writes the A-label of a label outside ASCII. What it shows must be what was typed, in lower case: the mapping of UTS
   46 may not drop an invisible character, nor turn a full-width letter or a ligature into what looks different. */
static enum result convert_label(char out[static LABEL_MAX + 1], const char *label, size_t length)
{
	char typed[LABEL_MAX * 4 + 1];
	uint8_t *converted = NULL;
	enum result result = unicode_lower(typed, sizeof(typed), label, length);

	if (result == RESULT_OK)
		result = idn_result(
		    idn2_lookup_u8((const uint8_t *)typed, &converted, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL));
	else if (result == RESULT_LIMITED)
		result = RESULT_INVALID;
	if (result == RESULT_OK) {
		const char *found = (const char *)converted;

		/* No plain ASCII from what was not. */
		if (!is_label(found, strlen(found)) || strncmp(found, "xn--", 4) != 0)
			result = RESULT_INVALID;
		else
			result = compare_shown(found, typed);
		if (result == RESULT_OK)
			memcpy(out, found, strlen(found) + 1);
	}
	idn2_free(converted);
	return result;
}

/* Writes a label in lower-case ASCII. What is ASCII already is taken as DNS allows it, an A-label too. */
static enum result read_label(char out[static LABEL_MAX + 1], const char *label, size_t length)
{
	if (!is_ascii(label, length))
		return convert_label(out, label, length);
	if (!is_label(label, length))
		return RESULT_INVALID;
	lower_copy(out, label, length);
	return RESULT_OK;
}

static bool is_numeric(const char *text)
{
	return text[strspn(text, "0123456789")] == '\0';
}

/* Writes the domain in lower-case A-labels: at least two, the last not a number, as an address of IPv4 ends in one. */
static enum result read_domain(char out[static DOMAIN_MAX + 1], const char *domain)
{
	const char *end = domain + strlen(domain);
	char label[LABEL_MAX + 1] = "";
	size_t used = 0, labels = 0;

	for (const char *start = domain, *dot; start != NULL; start = dot != NULL ? dot + 1 : NULL, labels++) {
		enum result result;
		size_t label_length;

		dot = strchr(start, '.');
		result = read_label(label, start, (size_t)((dot != NULL ? dot : end) - start));
		if (result != RESULT_OK)
			return result;
		label_length = strlen(label);
		if (used + label_length + (labels > 0) > DOMAIN_MAX)
			return RESULT_INVALID;
		if (labels > 0)
			out[used++] = '.';
		memcpy(out + used, label, label_length);
		used += label_length;
	}
	out[used] = '\0';
	return labels > 1 && !is_numeric(label) ? RESULT_OK : RESULT_INVALID;
}

/* --- The spellings --- */

/* Providers that ignore more than case and +tag, as they say themselves:
   Gmail: "Dots don't matter in Gmail addresses", support.google.com/mail/answer/7436150; googlemail.com is the same.
   Proton: their own web client drops these three before it compares, github.com/ProtonMail/WebClients. */
static const struct provider {
	const char *domain;
	const char *ignored; /* characters of the local part */
	const char *same_as; /* the domain to count by */
} providers[] = {
    {"gmail.com", ".", "gmail.com"},           {"googlemail.com", ".", "gmail.com"},
    {"proton.me", "._-", "proton.me"},         {"protonmail.com", "._-", "protonmail.com"},
    {"protonmail.ch", "._-", "protonmail.ch"}, {"pm.me", "._-", "pm.me"},
};

static const struct provider *find_provider(const char *domain)
{
	for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++)
		if (strcmp(domain, providers[i].domain) == 0)
			return &providers[i];
	return NULL;
}

/* How much of a local part names the mailbox: without a +tag, unless that is all there is. */
static size_t untagged_length(const char *local, size_t length)
{
	const char *plus = memchr(local, '+', length);

	return plus == NULL || plus == local ? length : (size_t)(plus - local);
}

/* Writes the spelling that limits count by, which is never longer than the recipient. */
static void write_mailbox(char out[static ADDRESS_MAX + 1], const char *local, size_t length, const char *domain)
{
	const struct provider *provider = find_provider(domain);
	size_t untagged = untagged_length(local, length);
	size_t used = 0;

	for (size_t i = 0; i < untagged; i++)
		if (provider == NULL || strchr(provider->ignored, local[i]) == NULL)
			out[used++] = lower(local[i]);
	/* All of it is ignored: no provider has such a mailbox, and it must not become that of another. */
	if (used == 0)
		for (; used < untagged; used++)
			out[used] = lower(local[used]);
	out[used++] = '@';
	if (provider != NULL)
		domain = provider->same_as;
	memcpy(out + used, domain, strlen(domain) + 1);
}

/* Writes where the mail goes; false: it is too long. */
static bool write_recipient(char out[static ADDRESS_MAX + 1], const char *local, size_t length, const char *domain)
{
	bool is_quoted = !is_dot_string(local, length);
	size_t used = 0;

	if (length + (is_quoted ? 2 : 0) + 1 + strlen(domain) > ADDRESS_MAX)
		return false;
	if (is_quoted)
		out[used++] = '"';
	memcpy(out + used, local, length);
	used += length;
	if (is_quoted)
		out[used++] = '"';
	out[used++] = '@';
	memcpy(out + used, domain, strlen(domain) + 1);
	return true;
}

enum result address_parse(struct address *address, const char *text, size_t length, const char **reason)
{
	char folded[TEXT_MAX + 1] = "", domain[DOMAIN_MAX + 1], recipient[ADDRESS_MAX + 1];
	const char *local = folded;
	size_t local_length;
	enum result result;
	const char *at;

	trim(&text, &length);
	*reason = "It is longer than 254 bytes.";
	if (length > TEXT_MAX)
		return RESULT_INVALID;
	*reason = fold(folded, text, length);
	if (*reason != NULL)
		return RESULT_INVALID;
	*reason = "It has no @.";
	at = strchr(folded, '@');
	if (at == NULL)
		return RESULT_INVALID;
	local_length = (size_t)(at - folded);
	if (local_length > 2 && local[0] == '"' && local[local_length - 1] == '"') {
		local++;
		local_length -= 2;
	}
	*reason = judge_local(local, local_length);
	if (*reason != NULL)
		return RESULT_INVALID;
	*reason = "The part after the @ is not the name of a domain.";
	result = read_domain(domain, at + 1);
	if (result != RESULT_OK)
		return result;
	*reason = "It is longer than 254 bytes.";
	if (!write_recipient(recipient, local, local_length, domain))
		return RESULT_INVALID;
	memcpy(address->given, text, length);
	address->given[length] = '\0';
	memcpy(address->recipient, recipient, strlen(recipient) + 1);
	write_mailbox(address->mailbox, local, local_length, domain);
	return RESULT_OK;
}

bool address_is_recipient(const char *text)
{
	struct address address;
	const char *reason = NULL;

	return address_parse(&address, text, strlen(text), &reason) == RESULT_OK &&
	       strcmp(address.recipient, text) == 0;
}
