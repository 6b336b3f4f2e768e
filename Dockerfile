# One image for the four programs, their migrations and what `docker compose` needs of them; see docker-compose.yml.
ARG BASE_IMAGE=debian:bookworm-slim

FROM $BASE_IMAGE AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    autoconf autoconf-archive automake gcc libc6-dev make pkg-config postgresql-client \
    libesmtp-dev libfcgi-dev libidn2-dev libjansson-dev libpq-dev libsodium-dev libssl-dev libunistring-dev
WORKDIR /src
COPY . .
RUN autoreconf -i && mkdir build && cd build && ../configure --prefix=/usr && make -j"$(nproc)" \
 && make install-strip DESTDIR=/out
# Modes are given here: in the checkout they may let nobody but its owner read.
RUN install -D -m 0755 compose/setup /out/usr/bin/otp-setup \
 && install -D -m 0644 -t /out/usr/share/otpd/compose compose/applications.json compose/pg_hba.conf tests/compose/acceptance.py
# psql alone: its package would bring Perl.
RUN install -D -s "$(pg_config --bindir)/psql" /out/usr/bin/psql

FROM $BASE_IMAGE
# libidn2-0 brings libunistring, whose package has its version in its name; ca-certificates brings openssl, with which setup
# makes the certificate; libfcgi-bin has the health checks' client.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ca-certificates libesmtp6 libfcgi-bin libfcgi0ldbl libidn2-0 libjansson4 libpq5 libreadline8 libsodium23 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    /usr/share/doc/* /usr/share/man/*
# Volumes take owner and mode from these folders: secrets are for the user alone, sockets for its group, which nginx is in.
RUN groupadd --gid 10001 otp && useradd --uid 10001 --gid otp --no-create-home --home-dir / --shell /usr/sbin/nologin otp \
 && install -d -o otp -g otp -m 0755 /secrets /site /tls \
 && install -d -o otp -g otp -m 0700 /secrets/generate /secrets/validate /secrets/worker \
 && install -d -o otp -g otp -m 0750 /secrets/database /run/otpd /run/otpd/generate /run/otpd/validate
COPY --from=build /out/ /
USER 10001:10001
CMD ["otp-generate", "--help"]
