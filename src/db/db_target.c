/* db_target.c: where the database is: the servers that a conninfo names, tried one at a time. */
#include "db/db_target.h"

#include <libpq-fe.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"

#define SERVERS_MAX 16U
#define OPTIONS_MAX 64U /* parameters of a connection; libpq knows some forty */
#define ALONE_MS 5000
#define AMONG_OTHERS_MS 2000 /* libpq's own lower limit for a host */

/* One address of one host. A text "" is left to libpq. */
struct server {
	char host[256];
	char address[64];
	char port[8];
};

struct db_target {
	PQconninfoOption *options; /* as parsed */
	const char *program;
	const char *session;
	char *session_options; /* the operator's, then ours */
	bool is_session_dropped;
	struct server servers[SERVERS_MAX];
	size_t count;
	size_t current;
	size_t tried;       /* since the list was made */
	struct server last; /* that worked */
	char name[360];
};

/* --- The check --- */

static bool is_url(const char *conninfo)
{
	return strncmp(conninfo, "postgresql://", 13) == 0 || strncmp(conninfo, "postgres://", 11) == 0;
}

/* What would make libpq refuse it, in words that do not quote it. */
static const char *guess_flaw(const char *conninfo)
{
	if (conninfo[0] == '"' || conninfo[0] == '\'')
		return "must not be in quotes: take them away (some files of variables keep them)";
	if (is_url(conninfo))
		return "is no valid URL: in user and password, percent-encode what is no letter or digit (@ is %40, / "
		       "is %2F, "
		       ": is %3A, % is %25)";
	if (strstr(conninfo, "://") != NULL)
		return "must begin with postgresql://, or be a list of key=value";
	return "must be a list of key=value with keys that libpq knows, values with blanks in single quotes, or a URL "
	       "that "
	       "begins with postgresql://";
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
	for (; options->keyword != NULL; options++)
		if (strcmp(options->keyword, keyword) == 0)
			return options->val;
	return NULL;
}

/* A password with an unencoded @ or / in it moves its end into the host, the port or the database's name, all of which
   end up in messages. */
static bool is_ambiguous_url(const char *conninfo)
{
	const char *start = strstr(conninfo, "://") + 3;
	size_t length = strcspn(start, "?#");
	const char *at = memchr(start, '@', length);

	return at != NULL && memchr(at + 1, '@', length - (size_t)(at + 1 - start)) != NULL;
}

/* Comma-separated: names, addresses, paths of sockets. */
static bool are_hosts(const char *hosts)
{
	for (; *hosts != '\0'; hosts += strspn(hosts, ",")) {
		size_t length = strcspn(hosts, ",");
		bool is_path = hosts[0] == '/' || hosts[0] == '@';

		if (!is_path &&
		    strspn(hosts, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:%") < length)
			return false;
		hosts += length;
	}
	return true;
}

static const char *find_flaw(const char *conninfo, const PQconninfoOption *options)
{
	const char *host = value_of(options, "host");
	const char *port = value_of(options, "port");

	if (is_url(conninfo) && is_ambiguous_url(conninfo))
		return "holds more than one @: percent-encode those of user and password (@ is %40)";
	if (host != NULL && !are_hosts(host))
		return "has a host that is none: percent-encode what is no letter or digit in user and password of a "
		       "URL";
	if (port != NULL && port[strspn(port, "0123456789,")] != '\0')
		return "has a port that is no number: percent-encode what is no letter or digit in user and password "
		       "of a URL";
	return NULL;
}

enum result db_target_check(const char *conninfo)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL); /* its message would quote it */
	const char *flaw = options == NULL ? guess_flaw(conninfo) : find_flaw(conninfo, options);

	PQconninfoFree(options);
	if (flaw == NULL)
		return RESULT_OK;
	complain("DATABASE_URL", "%s", flaw);
	return RESULT_INVALID;
}

/* --- The servers --- */

/* The i-th piece of a comma-separated list; the only one for every i; "" if there is none. */
static void get_piece(const char *list, size_t i, char *piece, size_t size)
{
	bool is_list = list != NULL && strchr(list, ',') != NULL;

	piece[0] = '\0';
	for (; is_list && i > 0 && list != NULL; i--) {
		list = strchr(list, ',');
		list = list != NULL ? list + 1 : NULL;
	}
	if (list != NULL)
		(void)snprintf(piece, size, "%.*s", (int)strcspn(list, ","), list);
}

static size_t count_pieces(const char *list)
{
	size_t count = 1;

	if (list == NULL)
		return 0;
	for (; *list != '\0'; list++)
		count += *list == ',';
	return count;
}

static void add_server(struct db_target *target, const struct server *server)
{
	if (target->count < SERVERS_MAX)
		target->servers[target->count++] = *server;
}

/* Adds every address of a host's name: a dead one must not keep libpq from the others. If it cannot be looked up, libpq
   says why. */
static void add_addresses(struct db_target *target, struct server *server)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *found = NULL;

	if (getaddrinfo(server->host, NULL, &hints, &found) != 0) {
		add_server(target, server);
		return;
	}
	for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
		if (getnameinfo(one->ai_addr, one->ai_addrlen, server->address, sizeof(server->address), NULL, 0,
				NI_NUMERICHOST) == 0)
			add_server(target, server);
	freeaddrinfo(found);
}

/* The operator's value, or what libpq would take from the environment instead. */
static const char *value_or_env(const struct db_target *target, const char *keyword, const char *variable)
{
	const char *value = value_of(target->options, keyword);

	return value != NULL ? value : getenv(variable);
}

static bool is_same(const struct server *one, const struct server *other)
{
	return strcmp(one->host, other->host) == 0 && strcmp(one->address, other->address) == 0 &&
	       strcmp(one->port, other->port) == 0;
}

/* Lists the servers anew, the one that worked last in front. Names may have moved to other addresses. */
static void list_servers(struct db_target *target)
{
	const char *hosts = value_or_env(target, "host", "PGHOST");
	const char *addresses = value_or_env(target, "hostaddr", "PGHOSTADDR");
	const char *ports = value_or_env(target, "port", "PGPORT");
	size_t count = count_pieces(addresses != NULL ? addresses : hosts);

	target->count = 0;
	target->tried = 0;
	target->current = 0;
	for (size_t i = 0; i < count; i++) {
		struct server server = {.host = ""};

		get_piece(hosts, i, server.host, sizeof(server.host));
		get_piece(addresses, i, server.address, sizeof(server.address));
		get_piece(ports, i, server.port, sizeof(server.port));
		if (server.address[0] == '\0' && server.host[0] != '/' && server.host[0] != '@' &&
		    server.host[0] != '\0')
			add_addresses(target, &server);
		else
			add_server(target, &server);
	}
	if (target->count == 0)
		add_server(target, &(struct server){.host = ""}); /* libpq's default */
	for (size_t i = 0; i < target->count; i++)
		if (is_same(&target->servers[i], &target->last))
			target->current = i;
}

/* --- The handle --- */

struct db_target *db_target_new(const char *conninfo, const char *program, const char *options)
{
	struct db_target *target = calloc(1, sizeof(*target));
	const char *own;

	if (target == NULL)
		return NULL;
	target->program = program;
	target->options = PQconninfoParse(conninfo, NULL);
	own = target->options != NULL ? value_or_env(target, "options", "PGOPTIONS") : NULL;
	if (target->options == NULL ||
	    asprintf(&target->session_options, "%s %s", own != NULL ? own : "", options) < 0) {
		target->session_options = NULL;
		db_target_free(target);
		return NULL;
	}
	return target;
}

void db_target_free(struct db_target *target)
{
	if (target == NULL)
		return;
	PQconninfoFree(target->options);
	free(target->session_options);
	free(target);
}

static void name_current(struct db_target *target)
{
	const struct server *server = &target->servers[target->current];
	bool has_both = server->host[0] != '\0' && server->address[0] != '\0';

	(void)snprintf(target->name, sizeof(target->name), "%s%s%s%s %s", server->host, has_both ? " (" : "",
		       server->address, has_both ? ")" : "", server->port);
}

/* Parameters of a connection, in libpq's form; a later one wins. */
struct parameters {
	size_t count;
	const char *names[OPTIONS_MAX];
	const char *values[OPTIONS_MAX];
};

static void add_parameter(struct parameters *parameters, const char *name, const char *value)
{
	if (value == NULL || value[0] == '\0' || parameters->count + 1 >= OPTIONS_MAX)
		return;
	parameters->names[parameters->count] = name;
	parameters->values[parameters->count++] = value;
}

struct pg_conn *db_target_connect(struct db_target *target)
{
	struct parameters parameters = {.count = 0};
	const struct server *server;

	if (target->tried == 0)
		list_servers(target);
	server = &target->servers[target->current];
	name_current(target);
	/* What the operator says comes later and wins, but for what is asked of every session. */
	add_parameter(&parameters, "client_encoding", "UTF8");
	add_parameter(&parameters, "fallback_application_name", target->program);
	add_parameter(&parameters, "keepalives_idle", "10");
	add_parameter(&parameters, "keepalives_interval", "5");
	add_parameter(&parameters, "keepalives_count", "3");
	add_parameter(&parameters, "tcp_user_timeout", "5000");
	add_parameter(&parameters, "target_session_attrs", "read-write");
	for (const PQconninfoOption *option = target->options; option->keyword != NULL; option++)
		if (strcmp(option->keyword, "host") != 0 && strcmp(option->keyword, "hostaddr") != 0 &&
		    strcmp(option->keyword, "port") != 0)
			add_parameter(&parameters, option->keyword, option->val);
	add_parameter(&parameters, "host", server->host);
	add_parameter(&parameters, "hostaddr", server->address);
	add_parameter(&parameters, "port", server->port);
	if (!target->is_session_dropped)
		add_parameter(&parameters, "options", target->session_options);
	return PQconnectStartParams(parameters.names, parameters.values, 0);
}

int db_target_timeout_ms(const struct db_target *target)
{
	const char *own = value_or_env(target, "connect_timeout", "PGCONNECT_TIMEOUT");
	long seconds = own != NULL ? strtol(own, NULL, 10) : 0;

	if (seconds > 0 && seconds <= 60)
		return (int)(seconds < 2 ? 2 : seconds) * 1000;
	return target->count > 1 ? AMONG_OTHERS_MS : ALONE_MS;
}

void db_target_keep(struct db_target *target)
{
	target->last = target->servers[target->current];
	target->tried = 0;
}

bool db_target_advance(struct db_target *target)
{
	if (target->count == 0)
		return false;
	target->tried++;
	target->current = (target->current + 1) % target->count;
	if (target->tried < target->count)
		return true;
	target->tried = 0;
	return false;
}

bool db_target_drop_options(struct db_target *target)
{
	bool was_dropped = target->is_session_dropped;

	target->is_session_dropped = true;
	return !was_dropped;
}

const char *db_target_name(const struct db_target *target)
{
	return target->name;
}

bool db_target_quotes_password(const struct db_target *target, const char *text)
{
	const char *password = value_of(target->options, "password");

	return password != NULL && password[0] != '\0' && strstr(text, password) != NULL;
}
