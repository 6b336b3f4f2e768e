/* smtp_letter.c: the mail under way in a session, and what the relay's replies mean for it. */
#include "mail/smtp_letter.h"

#include <stdio.h>

#include "base/clock.h"
#include "mail/smtp_connection.h"

/* So many doubts, and a mail is given up: it was perhaps taken, or refused by a relay that had its text; or its
   recipient was refused, and nobody can tell whether for good. */
#define DOUBTS_ABOUT_TEXT 2
#define DOUBTS_ABOUT_RECIPIENT 3

const char smtp_letter_lost[] = "connection lost, or no reply in time";

/* Why the session took nothing, if it ends so: the first word counts. A relay may quote the recipient, and after the
   text the code, too: of a reply to that only the numbers are kept. */
static void note_reason(const struct smtp_letter *letter, const struct smtp_reply *reply)
{
	struct smtp_connection *session = letter->connection;

	if (session->reason.text[0] != '\0')
		return;
	session->refused_step = letter->step;
	if (letter->given)
		smtp_reply_set(&session->reason, reply->code, reply->enhanced, "");
	else
		session->reason = *reply;
	smtp_reply_mask(&session->reason, letter->mail->recipient);
}

/* Of several refusals the first one is kept, a relay's word before ours. */
static void conclude(struct smtp_letter *letter, enum smtp_outcome outcome, const struct smtp_reply *reply)
{
	struct smtp_connection *session = letter->connection;
	struct smtp_mail *mail = letter->mail;

	if (mail->outcome != SMTP_RETRY || outcome != SMTP_RETRY || (mail->reply.code == 0 && reply->code != 0)) {
		mail->reply = *reply;
		mail->relay = session->relay->name;
	}
	if (outcome != SMTP_RETRY)
		mail->is_our_fault = false;
	mail->outcome = outcome;
	mail->finished_ms = clock_wall_ms();
	mail->refused_by |= session->relay_bit;
	letter->is_concluded = true;
}

static void conclude_in_doubt(struct smtp_letter *letter, int limit, const struct smtp_reply *reply)
{
	letter->mail->doubts++;
	conclude(letter, letter->mail->doubts >= limit ? SMTP_FAILED : SMTP_RETRY, reply);
}

/* The relay said no, or anything but yes. */
static void refuse(struct smtp_letter *letter, enum smtp_verdict verdict, const struct smtp_reply *reply)
{
	struct smtp_connection *session = letter->connection;

	note_reason(letter, reply);
	session->has_refused = session->has_refused || verdict != SMTP_CLOSES;
	switch (verdict) {
	case SMTP_CLOSES:
		session->current = NULL; /* the mail has no part in it */
		break;
	case SMTP_REFUSES_RECIPIENT:
		session->settled++;
		conclude(letter, SMTP_FAILED, reply);
		break;
	case SMTP_REFUSES_UNCLEARLY:
		conclude_in_doubt(letter, DOUBTS_ABOUT_RECIPIENT, reply);
		break;
	case SMTP_REFUSES_US:
		session->is_our_fault = true;
		letter->mail->is_our_fault = true;
		conclude(letter, SMTP_RETRY, reply);
		break;
	case SMTP_ACCEPTS: /* at the wrong moment */
	case SMTP_REFUSES_FOR_NOW:
		conclude(letter, SMTP_RETRY, reply);
		break;
	}
}

/* The relay refused what it has read. Whom it means matters less: nobody knows what would please it. */
static void refuse_text(struct smtp_letter *letter, enum smtp_verdict verdict, const struct smtp_reply *reply)
{
	struct smtp_connection *session = letter->connection;

	note_reason(letter, reply);
	session->has_refused = true;
	session->is_our_fault = session->is_our_fault || verdict == SMTP_REFUSES_US;
	letter->mail->is_our_fault = verdict == SMTP_REFUSES_US;
	if (reply->code >= 500)
		conclude_in_doubt(letter, DOUBTS_ABOUT_TEXT, reply);
	else
		conclude(letter, SMTP_RETRY, reply);
}

enum smtp_verdict smtp_letter_address(struct smtp_letter *letter, const struct smtp_reply *reply)
{
	const struct smtp_connection *session = letter->connection;
	struct smtp_relay *relay = session->relay;
	bool can_judge = !session->monitor.needs_login || session->monitor.is_logged_in;
	enum smtp_verdict verdict = smtp_verdict_of(reply);

	if (verdict == SMTP_ACCEPTS) {
		letter->step = "DATA";
		smtp_relay_note_accepted(relay);
		return verdict;
	}
	smtp_relay_note_refused(relay, letter->mail->recipient);
	if ((verdict == SMTP_REFUSES_RECIPIENT && !can_judge) ||
	    (verdict == SMTP_REFUSES_UNCLEARLY && (!can_judge || smtp_relay_refuses_everybody(relay))))
		verdict = SMTP_REFUSES_US;
	refuse(letter, verdict, reply);
	return verdict;
}

void smtp_letter_hand_over(struct smtp_letter *letter, const struct smtp_reply *reply)
{
	enum smtp_verdict verdict = smtp_verdict_of(reply);

	if (!letter->given) {
		refuse(letter, verdict, reply);
	} else if (verdict == SMTP_ACCEPTS && letter->text_ended) {
		letter->connection->settled++;
		conclude(letter, SMTP_SENT, reply);
	} else {
		refuse_text(letter, verdict, reply);
	}
}

void smtp_letter_lose(struct smtp_letter *letter)
{
	struct smtp_connection *session = letter->connection;
	char text[SMTP_REPLY_BYTES];
	struct smtp_reply reply;

	(void)snprintf(text, sizeof(text), "%s: %s%s", letter->step, smtp_letter_lost,
		       letter->text_ended ? "; perhaps it was taken" : "");
	smtp_reply_say(&reply, session->is_unmade ? "the mail could not be made" : text);
	if (session->reason.text[0] == '\0') {
		session->refused_step = letter->step;
		session->reason = reply;
	}
	if (letter->text_ended)
		conclude_in_doubt(letter, DOUBTS_ABOUT_TEXT, &reply);
	else
		conclude(letter, SMTP_RETRY, &reply);
}
