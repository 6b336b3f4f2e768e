/* reference.c: three letters by which a person tells one mail, or one tab, from another. */
#include "otp/reference.h"

void reference_write(const unsigned char id[static TOKEN_ID_BYTES], char text[static REFERENCE_TEXT + 1])
{
	static const char letters[] = "CDHJMPRTWX";
	const unsigned char *last = id + TOKEN_ID_BYTES - 3;
	unsigned number = (unsigned)last[0] << 16 | (unsigned)last[1] << 8 | last[2];

	for (size_t i = REFERENCE_TEXT; i > 0; i--) {
		text[i - 1] = letters[number % 10];
		number /= 10;
	}
	text[REFERENCE_TEXT] = '\0';
}
