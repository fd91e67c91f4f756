# The tuneloom command, the seed base model, and what makes a deployment's secrets. Without torch.
#   docker build -f docker/cli.Dockerfile -t tuneloom/cli .
# A new volume that is mounted below /secrets or /volumes belongs to this image's user, which the services share.
# Read-only root: needs a tmpfs on /tmp and a volume on /var/lib/tuneloom.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
ENV LIGHT=1
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY docker/install-locked /usr/local/bin/
COPY docker/locks/build.txt docker/locks/cli.txt /locks/
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-locked cli
WORKDIR /source
COPY docker/install-ours /usr/local/bin/
COPY protos protos
COPY services services
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-ours \
    ./protos ./services/common ./services/client ./services/data ./services/cli

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-cli" \
      org.opencontainers.image.description="The tuneloom command" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/tuneloom --shell /usr/sbin/nologin tuneloom \
 && cd / && install -d -o 10001 -g 10001 -m 700 var/lib/tuneloom secrets/registry secrets/trainer secrets/engine \
      secrets/gateway secrets/postgres secrets/s3 volumes/home volumes/objects volumes/registry \
      volumes/trainer volumes/postgres volumes/s3
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
COPY --from=build /opt/tuneloom /opt/tuneloom
COPY models/seed/weights /usr/share/tuneloom/seed
COPY models/seed/ordinary.jsonl /usr/share/tuneloom/ordinary.jsonl
ENV PATH=/opt/tuneloom/bin:$PATH \
    HOME=/var/lib/tuneloom \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TUNELOOM_HOME=/var/lib/tuneloom
WORKDIR /work
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["tuneloom"]
