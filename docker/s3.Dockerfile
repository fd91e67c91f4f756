# An S3 server from Debian's packages, for tests and for machines that cannot pull images: Ceph's RADOS gateway with one
# monitor and one disk in one container. It keeps no second copy of anything: not for data that matters.
#   docker build -f docker/s3.Dockerfile -t tuneloom/s3 .
# Read-only root: needs a tmpfs on /tmp and volumes on /var/lib/s3 and /run/secrets (access-key, secret-key).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-s3" \
      org.opencontainers.image.description="Ceph RADOS gateway of Debian 12 for Tuneloom's tests" \
      org.opencontainers.image.licenses="Apache-2.0 AND LGPL-2.1-only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/s3 --shell /usr/sbin/nologin tuneloom \
 && apt-get update && apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw curl \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/s3
COPY --chmod=755 docker/s3/start /usr/local/bin/start
COPY docker/s3/ceph.conf /etc/ceph/ceph.conf
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
USER 10001:10001
EXPOSE 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 \
    CMD ["start", "--healthy"]
ENTRYPOINT ["start"]
