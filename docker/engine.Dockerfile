# The engine host and vLLM for CPUs. The gateway talks to engines over Unix sockets: it must see /run/tuneloom as this
# container does (a volume that both mount there) and run as the same user.
#   docker build -f docker/engine.Dockerfile -t tuneloom/engine .
# Read-only root: needs a tmpfs on /tmp and volumes on /var/lib/tuneloom and /run/tuneloom.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY docker/install-locked /usr/local/bin/
COPY docker/locks/build.txt docker/locks/torch-cpu.txt docker/locks/engine.txt /locks/
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-locked torch-cpu engine
WORKDIR /source
COPY docker/install-ours /usr/local/bin/
COPY protos protos
COPY services services
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-ours \
    ./protos ./services/common ./services/client ./services/engine

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-engine" \
      org.opencontainers.image.description="Starts vLLM when a model is asked for, on CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/tuneloom --shell /usr/sbin/nologin tuneloom \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/tuneloom /run/tuneloom \
 && apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
COPY --from=build /opt/tuneloom /opt/tuneloom
ENV PATH=/opt/tuneloom/bin:$PATH \
    HOME=/var/lib/tuneloom \
    XDG_CACHE_HOME=/tmp/cache \
    VLLM_CACHE_ROOT=/tmp/vllm \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TUNELOOM_ENGINE_HOST=0.0.0.0 \
    TUNELOOM_ENGINE_LOG_JSON=true \
    TUNELOOM_ENGINE_PYTHON=/opt/tuneloom/bin/python \
    TUNELOOM_ENGINE_CACHE_DIR=/var/lib/tuneloom/engine \
    TUNELOOM_ENGINE_BLOB_CACHE_DIR=/var/lib/tuneloom/blobs \
    TUNELOOM_ENGINE_LOG_DIR=/var/lib/tuneloom/logs \
    TUNELOOM_ENGINE_SOCKET_DIR=/run/tuneloom
WORKDIR /var/lib/tuneloom
USER 10001:10001
EXPOSE 8010
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "tuneloom_common.probe", "http://127.0.0.1:8010/healthz", "TUNELOOM_ENGINE_TLS_CERTIFICATE"]
ENTRYPOINT ["python", "-m", "tuneloom_engine"]
