/* reference.h: three letters by which a person tells one mail, or one tab, from another. */
#ifndef OTP_REFERENCE_H
#define OTP_REFERENCE_H

#include "otp/token.h"

#define REFERENCE_TEXT 3U

/* The number that the last 3 bytes of the id are, big-endian, modulo 1000, as three decimal digits; each digit d is the
   letter at d of "CDHJMPRTWX" (0 is C, 9 is X). No vowel, so that they make no word; no two letters that look alike.
   otp.reference(id) in SQL does the same. */
void reference_write(const unsigned char id[static TOKEN_ID_BYTES], char text[static REFERENCE_TEXT + 1]);

#endif
