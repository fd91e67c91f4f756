# The worker: runs jobs (`tuneloom_trainer`, the default) or registry builds (`tuneloom_registry`), each as child processes
# with torch. The same services as in the light images, on the same database, with slots; nobody calls them, so they
# listen inside their container only.
#   docker build -f docker/worker.Dockerfile -t tuneloom/worker .
# Read-only root: needs a tmpfs on /tmp and a volume on /var/lib/tuneloom.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY docker/install-locked /usr/local/bin/
COPY docker/locks/build.txt docker/locks/torch-cpu.txt docker/locks/worker.txt /locks/
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-locked torch-cpu worker
WORKDIR /source
COPY docker/install-ours /usr/local/bin/
COPY protos protos
COPY services services
RUN --mount=type=bind,source=docker/wheels,target=/wheels install-ours \
    ./protos ./services/common ./services/client ./services/data ./services/registry ./services/trainer

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-worker" \
      org.opencontainers.image.description="Runs fine-tuning jobs and registry builds, on CPUs" \
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
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TUNELOOM_TRAINER_HOST=127.0.0.1 \
    TUNELOOM_TRAINER_LOG_JSON=true \
    TUNELOOM_TRAINER_DATABASE_URL=sqlite+aiosqlite:////var/lib/tuneloom/trainer.db \
    TUNELOOM_TRAINER_WORK_DIR=/var/lib/tuneloom/work \
    TUNELOOM_TRAINER_BLOB_CACHE_DIR=/var/lib/tuneloom/blobs \
    TUNELOOM_REGISTRY_HOST=127.0.0.1 \
    TUNELOOM_REGISTRY_LOG_JSON=true \
    TUNELOOM_REGISTRY_DATABASE_URL=sqlite+aiosqlite:////var/lib/tuneloom/registry.db \
    TUNELOOM_REGISTRY_WORK_DIR=/var/lib/tuneloom/work \
    TUNELOOM_REGISTRY_BLOB_CACHE_DIR=/var/lib/tuneloom/blobs
WORKDIR /var/lib/tuneloom
USER 10001:10001
STOPSIGNAL SIGTERM
# Of the trainer; for a builder: grpc://127.0.0.1:8021.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "tuneloom_common.probe", "grpc://127.0.0.1:8022", "TUNELOOM_TRAINER_TLS_CERTIFICATE"]
ENTRYPOINT ["python", "-m"]
CMD ["tuneloom_trainer"]
