/* result.c: names of the outcomes. */
#include "base/result.h"

const char *result_name(enum result result)
{
	switch (result) {
	case RESULT_OK:
		return "ok";
	case RESULT_INVALID:
		return "invalid";
	case RESULT_LIMITED:
		return "limited";
	case RESULT_UNAVAILABLE:
		return "unavailable";
	case RESULT_UNKNOWN:
		return "unknown";
	case RESULT_FAULT:
		return "fault";
	}
	return "fault";
}
