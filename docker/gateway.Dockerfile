# The gateway: OpenAI-compatible HTTP. Without torch.
#   docker build -f docker/gateway.Dockerfile -t tuneloom/gateway .
# Read-only root: needs a tmpfs on /tmp.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
ENV LIGHT=1
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY docker/install-locked /usr/local/bin/
COPY docker/locks/build.txt docker/locks/gateway.txt /locks/
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-locked gateway
WORKDIR /source
COPY docker/install-ours /usr/local/bin/
COPY protos protos
COPY services services
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-ours \
    ./protos ./services/common ./services/client ./services/gateway

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-gateway" \
      org.opencontainers.image.description="OpenAI-compatible gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/tuneloom --shell /usr/sbin/nologin tuneloom \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/tuneloom
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
COPY --from=build /opt/tuneloom /opt/tuneloom
ENV PATH=/opt/tuneloom/bin:$PATH \
    HOME=/var/lib/tuneloom \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TUNELOOM_GATEWAY_HOST=0.0.0.0 \
    TUNELOOM_GATEWAY_LOG_JSON=true
WORKDIR /var/lib/tuneloom
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "tuneloom_common.probe", "http://127.0.0.1:8000/healthz", "TUNELOOM_GATEWAY_TLS_CERTIFICATE"]
ENTRYPOINT ["python", "-m", "tuneloom_gateway"]
