/* address.c: what an email address is here, and which spellings are one mailbox. */
#include "otp/address.h"

#include <idn2.h>
#include <string.h>
#include <strings.h>

#include "base/utf8.h"

#define LOCAL_MAX 64U   /* RFC 5321 4.5.3.1.1 */
#define DOMAIN_MAX 253U /* RFC 1035 2.3.4, as text without the root's dot */
#define LABEL_MAX 63U

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

/* atext of RFC 5322 3.2.3. */
static bool is_local_byte(char byte)
{
	return is_alphanumeric(byte) || (byte != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", byte) != NULL);
}

/* A dot-string of RFC 5321 4.1.2. */
static bool is_local(const char *text, size_t length)
{
	if (length == 0 || length > LOCAL_MAX || text[0] == '.' || text[length - 1] == '.')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_local_byte(text[i]) && (text[i] != '.' || text[i - 1] == '.'))
			return false;
	return true;
}

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

static bool has_ace_prefix(const char *label, size_t length)
{
	return length >= 4 && lower(label[0]) == 'x' && lower(label[1]) == 'n' && label[2] == '-' && label[3] == '-';
}

/* Characters of well-formed UTF-8. */
static size_t count_characters(const char *text, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += ((unsigned char)text[i] & 0xC0) != 0x80;
	return count;
}

static enum result idn_result(int code)
{
	if (code == IDN2_OK)
		return RESULT_OK;
	return code == IDN2_MALLOC ? RESULT_FAULT : RESULT_INVALID;
}

/* Copies an A-label in lower case; false if it is none. */
static bool lower_ace(char out[static LABEL_MAX + 1], const char *label)
{
	size_t length = strlen(label);

	if (!is_label(label, length) || !has_ace_prefix(label, length))
		return false;
	lower_copy(out, label, length);
	return true;
}

/* Writes the A-label of a label that is not plain ASCII, or that claims to be an A-label itself. The mapping of UTS 46
   may change case, but no more than that: not drop an invisible character, not turn a full-width letter, an ideographic
   full stop or a ligature into what looks different from what was typed. Hence the same number of characters there and
   back, no pure ASCII from what was not, and no A-label that stands for anything else than itself. */
static enum result convert_label(char out[static LABEL_MAX + 1], const char *label, size_t length)
{
	char typed[LABEL_MAX * 4 + 1], ascii[LABEL_MAX + 1];
	uint8_t *converted = NULL;
	char *shown = NULL;
	bool claims_ace = is_ascii(label, length);
	enum result result;

	if (length >= sizeof(typed) || !utf8_is_valid(label, length))
		return RESULT_INVALID;
	memcpy(typed, label, length);
	typed[length] = '\0';
	result = idn_result(idn2_lookup_u8((const uint8_t *)typed, &converted, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL));
	if (result != RESULT_OK)
		goto out;
	result = RESULT_INVALID;
	if (!lower_ace(ascii, (const char *)converted))
		goto out;
	result = idn_result(idn2_to_unicode_8z8z(ascii, &shown, 0));
	if (result != RESULT_OK)
		goto out;
	result = RESULT_INVALID;
	if (claims_ace ? is_ascii(shown, strlen(shown)) || strcasecmp(typed, ascii) != 0
		       : count_characters(shown, strlen(shown)) != count_characters(typed, length))
		goto out;
	memcpy(out, ascii, strlen(ascii) + 1);
	result = RESULT_OK;
out:
	idn2_free(converted);
	idn2_free(shown);
	return result;
}

/* Writes a label in lower-case ASCII. Plain ASCII, nearly all there is, needs no library. */
static enum result read_label(char out[static LABEL_MAX + 1], const char *label, size_t length)
{
	if (!is_ascii(label, length) || has_ace_prefix(label, length))
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
static enum result read_domain(char out[static DOMAIN_MAX + 1], const char *domain, size_t length)
{
	const char *end = domain + length;
	char label[LABEL_MAX + 1] = "";
	size_t used = 0, labels = 0;

	for (const char *start = domain, *dot; start != NULL; start = dot != NULL ? dot + 1 : NULL, labels++) {
		enum result result;
		size_t label_length;

		dot = memchr(start, '.', (size_t)(end - start));
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

/* No byte that ends a text, a line or a word somewhere below may take part in what follows: every function gets a
   length, and the libraries get strings. */
static bool is_one_word(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] <= ' ' || text[i] == 0x7F)
			return false;
	return true;
}

/* How much of a local part names the mailbox: without a +tag, unless that is all there is. */
static size_t untagged_length(const char *local, size_t length)
{
	const char *plus = memchr(local, '+', length);

	return plus == NULL || plus == local ? length : (size_t)(plus - local);
}

/* Fills the three spellings, all of which fit. */
static void write_spellings(struct address *address, const char *text, size_t length, const char *domain)
{
	size_t local_length = (size_t)((const char *)memchr(text, '@', length) - text);
	size_t untagged = untagged_length(text, local_length);
	size_t domain_length = strlen(domain);

	memcpy(address->given, text, length);
	address->given[length] = '\0';
	memcpy(address->recipient, text, local_length + 1);
	memcpy(address->recipient + local_length + 1, domain, domain_length + 1);
	lower_copy(address->mailbox, text, untagged);
	address->mailbox[untagged] = '@';
	memcpy(address->mailbox + untagged + 1, domain, domain_length + 1);
}

enum result address_parse(struct address *address, const char *text, size_t length)
{
	char domain[DOMAIN_MAX + 1];
	size_t local_length;
	enum result result;
	const char *at;

	while (length > 0 && (text[0] == ' ' || text[0] == '\t')) {
		text++;
		length--;
	}
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	if (length >= sizeof(address->given) || !is_one_word(text, length))
		return RESULT_INVALID;
	at = memchr(text, '@', length);
	if (at == NULL || !is_local(text, (size_t)(at - text)))
		return RESULT_INVALID;
	local_length = (size_t)(at - text);
	result = read_domain(domain, at + 1, length - local_length - 1);
	if (result != RESULT_OK)
		return result;
	if (local_length + 1 + strlen(domain) > ADDRESS_MAX)
		return RESULT_INVALID;
	write_spellings(address, text, length, domain);
	return RESULT_OK;
}

bool address_is_recipient(const char *text)
{
	struct address address;

	return address_parse(&address, text, strlen(text)) == RESULT_OK && strcmp(address.recipient, text) == 0;
}
