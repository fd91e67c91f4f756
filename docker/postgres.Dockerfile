# PostgreSQL from Debian's packages, for tests and for machines that cannot pull images. A role and a database for each
# service, made at the first start from the files in /run/secrets that are called like them.
#   docker build -f docker/postgres.Dockerfile -t tuneloom/postgres .
# Read-only root: needs a tmpfs on /tmp and volumes on /var/lib/postgresql and /run/secrets.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-postgres" \
      org.opencontainers.image.description="PostgreSQL 15 of Debian 12 for Tuneloom" \
      org.opencontainers.image.licenses="Apache-2.0 AND PostgreSQL" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/postgresql --shell /usr/sbin/nologin tuneloom \
 && apt-get update && apt-get install -y --no-install-recommends postgresql-common \
 && sed -ri 's/#?(create_main_cluster) .*$/\1 = false/' /etc/postgresql-common/createcluster.conf \
 && apt-get install -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/* \
 && rm -rf /var/lib/postgresql && install -d -o 10001 -g 10001 -m 700 /var/lib/postgresql
COPY --chmod=755 docker/postgres/start /usr/local/bin/start
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
USER 10001:10001
EXPOSE 5432
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["pg_isready", "-q", "-h", "127.0.0.1", "-d", "registry", "-U", "registry"]
ENTRYPOINT ["start"]
