#!/bin/bash
# What the official image's entrypoint does with an empty data folder, in short.
set -euo pipefail

if [ "$1" = postgres ]; then
	mkdir -p "$PGDATA"
	chmod 0700 "$PGDATA" || :
	chmod 3775 /var/run/postgresql || :
fi
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	chown -R postgres "$PGDATA" /var/run/postgresql
	exec setpriv --reuid postgres --regid postgres --clear-groups "$0" "$@"
fi

value() {
	local file="${1}_FILE"
	if [ -n "${!file:-}" ]; then cat "${!file}"; else echo "${!1:-${2:-}}"; fi
}

# Since 18 a mount where the data used to be is taken for a mistake, unless the data folder is somebody's own choice.
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ] && [ "$PGDATA" = "/var/lib/postgresql/$PG_MAJOR/docker" ] &&
	mountpoint -q /var/lib/postgresql/data; then
	echo "Error: in 18+, these Docker images are configured to store database data in a format which is compatible with pg_ctlcluster" >&2
	exit 1
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	user=$(value POSTGRES_USER postgres)
	password=$(value POSTGRES_PASSWORD)
	database=$(value POSTGRES_DB "$user")
	if [ -z "$password" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
		echo "Error: Database is uninitialized and superuser password is not specified." >&2
		exit 1
	fi
	eval "initdb --username='$user' --pwfile=<(echo '$password') ${POSTGRES_INITDB_ARGS:-}"
	printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
	pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
	[ "$database" = postgres ] || psql -v ON_ERROR_STOP=1 -U "$user" -d postgres -v name="$database" <<< 'create database :"name";'
	for file in /docker-entrypoint-initdb.d/*; do
		case $file in
		*.sh) . "$file" ;;
		*.sql) psql -v ON_ERROR_STOP=1 -U "$user" -d "$database" -f "$file" ;;
		esac
	done
	pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
