#!/bin/sh
# What the official image's entrypoint does: scripts of /docker-entrypoint.d when the command is nginx itself.
set -e
if [ "$1" = nginx ]; then
	for script in /docker-entrypoint.d/*.sh; do
		[ ! -x "$script" ] || "$script"
	done
fi
exec "$@"
