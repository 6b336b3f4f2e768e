/* pump.c: the way to the database and back: requests in batches, health checks, and wake-ups of the workers. */
#include "http/pump.h"

#include <stdlib.h>

#include "base/log.h"
#include "db/db_rows.h"
#include "db/db_wait.h"

/* A request waits in the queue, then at the database; both together stay under the 3 s that are promised. */
#define QUEUE_MS 1000
#define CALL_MS 1900
#define NOTIFY_MS 20  /* at most one wake-up in this time */
#define DEPTH_MS 1000 /* and one look at how many mails wait */
#define BLAMED_MAX 8  /* requests of a batch that fail alone; with more of them none is to blame */

/* An item of the batch just answered, out of the batcher. */
struct done {
	struct batch_item *item;
	struct batch_item *followers; /* who share its verdict; linked by next */
};

struct pump {
	struct pump_settings settings;
	struct db_client client;
	struct db *db;
	struct batch *batch;
	struct db_params *params;
	struct batch_item **under_way;
	size_t under_way_count;
	size_t blamed; /* that failed alone since the last batch */
	struct done *done;
	struct batch_item *pings; /* health checks that wait for the database; linked by next */
	struct batch_item *pings_under_way;
	bool pinged_last;
	bool notify_wanted;
	uint64_t notify_after_ms;
	bool depth_wanted; /* mails were queued since the last look */
	bool is_outbox_full;
	uint64_t depth_after_ms;
	uint64_t quiet_until_ms; /* about too many */
};

static void shed(struct pump *pump);
static void send_next(struct pump *pump);

/* --- Batches --- */

/* Those behind the item for whom its verdict holds as well, as a list. */
static struct batch_item *take_sharers(struct pump *pump, struct batch_item *item, size_t i)
{
	const struct pump_work *work = pump->settings.work;
	const struct batch_item *next;
	struct batch_item *sharers = NULL;

	while ((next = batch_follower(item)) != NULL && work->is_shared(work->context, item, next, i)) {
		struct batch_item *follower = batch_take_follower(pump->batch, item);

		follower->next = sharers;
		sharers = follower;
	}
	return sharers;
}

/* Takes what is under way out of the batcher, with those behind it who share its verdict. */
static size_t take_done(struct pump *pump, bool is_decoded)
{
	size_t count = pump->under_way_count;

	for (size_t i = 0; i < count; i++) {
		struct done *done = &pump->done[i];

		*done = (struct done){.item = pump->under_way[i]};
		if (is_decoded)
			done->followers = take_sharers(pump, done->item, i);
		batch_finish(pump->batch, done->item);
	}
	pump->under_way_count = 0;
	return count;
}

static void report(struct pump *pump, size_t i, enum result result)
{
	struct batch_item *item = pump->done[i].item;

	item->next = pump->done[i].followers;
	while (item != NULL) {
		struct batch_item *next = item->next;

		pump->settings.on_item(pump->settings.context, item, result, i);
		item = next;
	}
}

/* The server has certainly done nothing of it: it refused the batch, or rolled it back because of a lock or its time.
   An unknown outcome is another matter: no guess is evaluated twice. */
static bool is_rolled_back(enum result result)
{
	return result == RESULT_FAULT || result == RESULT_UNAVAILABLE;
}

/* One request may be to blame for all: each goes again alone, if its time allows. */
static void retry_alone(struct pump *pump)
{
	pump->blamed = 0;
	while (pump->under_way_count > 0)
		batch_retry_alone(pump->batch, pump->under_way[--pump->under_way_count]);
}

static void on_batch(void *context, enum result result, const struct pg_result *rows)
{
	struct pump *pump = context;
	const struct pump_work *work = pump->settings.work;
	unsigned call = pump->under_way[0]->call;
	size_t count;

	if (is_rolled_back(result) && pump->under_way_count > 1) {
		retry_alone(pump);
		return;
	}
	if (is_rolled_back(result))
		pump->blamed++;
	if (result == RESULT_OK)
		result = work->decode(work->context, call, rows, pump->under_way_count);
	count = take_done(pump, result == RESULT_OK);
	if (result == RESULT_OK && (work->mail_calls & 1U << call) != 0)
		pump->notify_wanted = pump->depth_wanted = true;
	/* The database works on the next batch while these answers are written. Who has waited too long behind a slow
	   one must not go with it. */
	shed(pump);
	send_next(pump);
	for (size_t i = 0; i < count; i++)
		report(pump, i, result);
}

static void refuse(struct pump *pump, struct batch_item *item, enum result result)
{
	pump->settings.on_item(pump->settings.context, item, result, 0);
}

/* Sends what is under way. */
static enum result send_under_way(struct pump *pump)
{
	const struct pump_work *work = pump->settings.work;
	bool is_alone = pump->under_way[0]->alone;
	unsigned call = pump->under_way[0]->call;

	if (is_alone && pump->blamed >= BLAMED_MAX)
		return RESULT_UNAVAILABLE;
	work->encode(work->context, pump->params, pump->under_way, pump->under_way_count);
	metrics_count_batch(pump->settings.metrics, pump->under_way_count);
	return db_send(pump->db, is_alone ? PUMP_ALONE(call) : PUMP_BATCH(call), pump->params, CALL_MS, on_batch, pump);
}

static void send_batch(struct pump *pump)
{
	enum result result;

	pump->under_way_count = batch_take(pump->batch, pump->under_way, pump->settings.batch_max);
	result = send_under_way(pump);
	while (result != RESULT_OK && pump->under_way_count > 0) {
		struct batch_item *item = pump->under_way[--pump->under_way_count];

		batch_finish(pump->batch, item);
		refuse(pump, item, result);
	}
}

enum result pump_add(struct pump *pump, struct batch_item *item)
{
	bool is_mail = (pump->settings.work->mail_calls & 1U << item->call) != 0;

	return db_is_up(pump->db) && !(is_mail && pump->is_outbox_full) ? batch_add(pump->batch, item)
									: RESULT_UNAVAILABLE;
}

/* --- Health checks --- */

static void on_ping(void *context, enum result result, const struct pg_result *rows)
{
	struct pump *pump = context;
	struct batch_item *list = pump->pings_under_way;

	(void)rows;
	pump->pings_under_way = NULL;
	send_next(pump);
	while (list != NULL) {
		struct batch_item *item = list;

		list = item->next;
		pump->settings.on_ping(pump->settings.context, item, result);
	}
}

static void send_ping(struct pump *pump)
{
	db_params_reset(pump->params);
	if (db_send(pump->db, PUMP_PING, pump->params, CALL_MS, on_ping, pump) != RESULT_OK)
		return;
	pump->pings_under_way = pump->pings;
	pump->pings = NULL;
}

enum result pump_ping(struct pump *pump, struct batch_item *item)
{
	if (!db_is_up(pump->db))
		return RESULT_UNAVAILABLE;
	item->next = pump->pings;
	pump->pings = item;
	return RESULT_OK;
}

static void refuse_overdue_pings(struct pump *pump, uint64_t before_ms)
{
	struct batch_item **place = &pump->pings;

	while (*place != NULL) {
		struct batch_item *item = *place;

		if (item->arrived_ms < before_ms) {
			*place = item->next;
			pump->settings.on_ping(pump->settings.context, item, RESULT_UNAVAILABLE);
		} else {
			place = &item->next;
		}
	}
}

/* --- Wake-ups --- */

static void on_notified(void *context, enum result result, const struct pg_result *rows)
{
	(void)result; /* a lost wake-up costs a second: the workers poll */
	(void)rows;
	send_next(context);
}

static void send_notify(struct pump *pump)
{
	db_params_reset(pump->params);
	if (db_send(pump->db, (int)pump->settings.work->notify, pump->params, CALL_MS, on_notified, pump) != RESULT_OK)
		return;
	pump->notify_wanted = false;
	pump->notify_after_ms = loop_now_ms(pump->settings.loop) + NOTIFY_MS;
}

/* --- How many mails wait --- */

static void on_depth(void *context, enum result result, const struct pg_result *rows)
{
	struct pump *pump = context;
	int32_t depth = 0;

	if (result == RESULT_OK && db_get_int(rows, 0, 0, &depth) == RESULT_OK)
		pump->is_outbox_full = depth > pump->settings.outbox_max;
	pump->settings.metrics->outbox_full = pump->is_outbox_full;
	if (pump->is_outbox_full && log_is_due(&pump->quiet_until_ms, loop_now_ms(pump->settings.loop)))
		log_event(LOG_ERROR, "outbox_full", LOG_NUMBER("mails", pump->settings.outbox_max));
	send_next(pump);
}

static void send_depth(struct pump *pump)
{
	db_params_reset(pump->params);
	db_add_int(pump->params, pump->settings.outbox_max + 1);
	if (db_send(pump->db, pump->settings.work->depth, pump->params, CALL_MS, on_depth, pump) != RESULT_OK)
		return;
	pump->depth_wanted = false;
	pump->depth_after_ms = loop_now_ms(pump->settings.loop) + DEPTH_MS;
}

/* While too many wait, it is looked for when they do not any more. */
static bool is_depth_wanted(const struct pump *pump)
{
	return pump->settings.outbox_max > 0 && (pump->depth_wanted || pump->is_outbox_full);
}

/* --- The pump --- */

/* Refuses what cannot be answered in time, and everything while the database is away. */
static void shed(struct pump *pump)
{
	uint64_t now_ms = loop_now_ms(pump->settings.loop);
	uint64_t limit_ms = db_is_up(pump->db) ? (now_ms > QUEUE_MS ? now_ms - QUEUE_MS : 0) : UINT64_MAX;
	struct batch_item *item;

	while ((item = batch_take_overdue(pump->batch, limit_ms)) != NULL)
		refuse(pump, item, RESULT_UNAVAILABLE);
	refuse_overdue_pings(pump, limit_ms);
}

/* A health check goes first, but not twice in a row while requests wait. */
static void send_next(struct pump *pump)
{
	bool is_queued = batch_has_queued(pump->batch);
	bool is_ping = pump->pings != NULL && !(pump->pinged_last && is_queued);

	if (!db_is_ready(pump->db))
		return;
	pump->pinged_last = is_ping;
	if (is_ping)
		send_ping(pump);
	else if (pump->notify_wanted && loop_now_ms(pump->settings.loop) >= pump->notify_after_ms)
		send_notify(pump);
	else if (is_depth_wanted(pump) && loop_now_ms(pump->settings.loop) >= pump->depth_after_ms)
		send_depth(pump);
	else
		/* One that is refused at once makes room for the next. */
		while (db_is_ready(pump->db) && batch_has_queued(pump->batch))
			send_batch(pump);
}

void pump_run(struct pump *pump)
{
	db_tick(pump->db, loop_now_ms(pump->settings.loop));
	shed(pump);
	send_next(pump);
}

uint64_t pump_next_ms(const struct pump *pump)
{
	uint64_t next_ms = db_next_tick_ms(pump->db);
	uint64_t oldest_ms = batch_oldest_ms(pump->batch);

	if (oldest_ms != UINT64_MAX && oldest_ms + QUEUE_MS < next_ms)
		next_ms = oldest_ms + QUEUE_MS + 1;
	/* A busy database wakes us when it has answered; the wake-up goes out then. */
	if (pump->notify_wanted && db_is_ready(pump->db) && pump->notify_after_ms < next_ms)
		next_ms = pump->notify_after_ms;
	if (is_depth_wanted(pump) && db_is_ready(pump->db) && pump->depth_after_ms < next_ms)
		next_ms = pump->depth_after_ms;
	return next_ms;
}

struct pump *pump_new(const struct pump_settings *settings)
{
	struct pump *pump = calloc(1, sizeof(*pump));

	if (pump == NULL)
		return NULL;
	pump->settings = *settings;
	pump->depth_wanted = settings->work->mail_calls != 0; /* as it was left */
	pump->batch = batch_new(settings->queue_max);
	pump->params = db_params_new();
	pump->under_way = calloc(settings->batch_max, sizeof(pump->under_way[0]));
	pump->done = calloc(settings->batch_max, sizeof(pump->done[0]));
	pump->client = (struct db_client){settings->program, db_session_request, settings->work->statements};
	pump->db = db_new(settings->loop, settings->database_url, &pump->client);
	if (pump->batch != NULL && pump->params != NULL && pump->under_way != NULL && pump->done != NULL &&
	    pump->db != NULL)
		return pump;
	pump_free(pump);
	return NULL;
}

void pump_free(struct pump *pump)
{
	if (pump == NULL)
		return;
	db_free(pump->db);
	free(pump->done);
	free(pump->under_way);
	db_params_free(pump->params);
	batch_free(pump->batch);
	free(pump);
}

void pump_connect(struct pump *pump, int timeout_ms)
{
	(void)!db_connect(pump->db, timeout_ms);
}

bool pump_is_up(const struct pump *pump)
{
	return db_is_up(pump->db);
}

size_t pump_waiting(const struct pump *pump)
{
	return batch_count(pump->batch);
}

uint64_t pump_clock_ms(const struct pump *pump)
{
	return db_clock_ms(pump->db, loop_now_ms(pump->settings.loop));
}
