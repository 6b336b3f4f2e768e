/* ticket.c: what a right code earns for the next time: sends that a stranger cannot use up (A19). */
#include "otp/ticket.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "otp/base64url.h"

#define DAY_MS 86400000U
#define MAC_BYTES 24U

/* As it travels: bytes alone, numbers big-endian. */
struct ticket {
	unsigned char key[2];
	unsigned char day[2]; /* up to the year 2149 */
	unsigned char id[TICKET_ID_TEXT / 2];
	unsigned char mac[MAC_BYTES];
};

_Static_assert(BASE64URL_TEXT(sizeof(struct ticket)) == TICKET_TEXT, "the length of a ticket");

static void put_number(unsigned char bytes[static 2], unsigned number)
{
	bytes[0] = (unsigned char)(number >> 8);
	bytes[1] = (unsigned char)number;
}

static unsigned get_number(const unsigned char bytes[static 2])
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* mac = BLAKE2b(key, "otpd ticket 1" || day || id || application || NUL || mailbox). */
static void make_mac(unsigned char mac[static MAC_BYTES], const unsigned char key[static KEY_BYTES],
		     const struct ticket *ticket, const char *application, const char *mailbox)
{
	static const unsigned char context[] = "otpd ticket 1";

	crypto_generichash_state state;
	(void)crypto_generichash_init(&state, key, KEY_BYTES, MAC_BYTES);
	(void)crypto_generichash_update(&state, context, sizeof(context) - 1);
	(void)crypto_generichash_update(&state, ticket->day, sizeof(ticket->day));
	(void)crypto_generichash_update(&state, ticket->id, sizeof(ticket->id));
	(void)crypto_generichash_update(&state, (const unsigned char *)application, strlen(application) + 1);
	(void)crypto_generichash_update(&state, (const unsigned char *)mailbox, strlen(mailbox));
	(void)crypto_generichash_final(&state, mac, MAC_BYTES);
	sodium_memzero(&state, sizeof(state));
}

void ticket_make(char text[static TICKET_TEXT + 1], const struct key_ring *keys, const char *application,
		 const char *mailbox, uint64_t now_ms, void (*random)(void *bytes, size_t count))
{
	struct ticket ticket;

	put_number(ticket.key, (unsigned)keys->id[0]);
	put_number(ticket.day, (unsigned)(now_ms / DAY_MS));
	random(ticket.id, sizeof(ticket.id));
	make_mac(ticket.mac, keys->key[0], &ticket, application, mailbox);
	base64url_write(text, (const unsigned char *)&ticket, sizeof(ticket));
}

static bool is_authentic(const struct ticket *ticket, const struct key_ring *keys, const char *application,
			 const char *mailbox)
{
	unsigned char mac[MAC_BYTES];
	bool is_same = false;

	for (size_t i = 0; i < keys->count; i++) {
		if (get_number(ticket->key) != (unsigned)keys->id[i])
			continue;
		make_mac(mac, keys->key[i], ticket, application, mailbox);
		is_same = sodium_memcmp(mac, ticket->mac, sizeof(mac)) == 0;
	}
	sodium_memzero(mac, sizeof(mac)); /* what a forger would need */
	return is_same;
}

enum result ticket_read(char id[static TICKET_ID_TEXT + 1], const struct key_ring *keys, const char *text,
			size_t length, const char *application, const char *mailbox, uint64_t now_ms)
{
	struct ticket ticket;
	uint64_t today = now_ms / DAY_MS;
	unsigned day;

	if (base64url_read((unsigned char *)&ticket, sizeof(ticket), text, length) != RESULT_OK ||
	    !is_authentic(&ticket, keys, application, mailbox))
		return RESULT_INVALID;
	/* The clocks of several machines differ. */
	day = get_number(ticket.day);
	if (day > today + 1 || day + TICKET_DAYS < today)
		return RESULT_INVALID;
	(void)sodium_bin2hex(id, TICKET_ID_TEXT + 1, ticket.id, sizeof(ticket.id));
	return RESULT_OK;
}
