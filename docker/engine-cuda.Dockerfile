# The engine host in vLLM's own image for NVIDIA GPUs. WRITTEN AND LINTED ONLY: nobody has built or run this file yet.
# What vLLM's Python has already stays as it is: our packages and what they need lie behind its own on the path.
#   docker build -f docker/engine-cuda.Dockerfile -t tuneloom/engine:cuda .
#   docker run --gpus all --read-only --tmpfs /tmp -v engine:/var/lib/tuneloom -v sockets:/run/tuneloom tuneloom/engine:cuda
ARG BASE=vllm/vllm-openai:v0.32.0

FROM ${BASE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
COPY docker/locks/build.txt docker/locks/engine-cuda.txt /locks/
WORKDIR /source
COPY protos protos
COPY services services
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    python3 -m venv /makers \
 && /makers/bin/pip install -q --require-hashes --no-deps --index-url "$PIP_INDEX_URL" --find-links /wheels -r /locks/build.txt \
 && /makers/bin/pip wheel -q --no-deps --no-build-isolation --no-index -w /dist \
      ./protos ./services/common ./services/client ./services/engine \
 && /makers/bin/pip install -q --require-hashes --no-deps --index-url "$PIP_INDEX_URL" --find-links /wheels \
      --only-binary :all: --target /opt/tuneloom -r /locks/engine-cuda.txt \
 && /makers/bin/pip install -q --no-deps --no-index --target /opt/tuneloom /dist/*.whl

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tuneloom-engine-cuda" \
      org.opencontainers.image.description="Starts vLLM when a model is asked for, on GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 tuneloom \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/tuneloom --shell /usr/sbin/nologin tuneloom \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/tuneloom /run/tuneloom
COPY LICENSE /usr/share/doc/tuneloom/LICENSE
COPY --from=build /opt/tuneloom /opt/tuneloom
RUN python3 -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'tuneloom.pth').write_text('/opt/tuneloom')"
ENV HOME=/var/lib/tuneloom \
    XDG_CACHE_HOME=/tmp/cache \
    VLLM_CACHE_ROOT=/tmp/vllm \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TUNELOOM_ENGINE_HOST=0.0.0.0 \
    TUNELOOM_ENGINE_LOG_JSON=true \
    TUNELOOM_ENGINE_DEVICE=gpu \
    TUNELOOM_ENGINE_PYTHON=/usr/bin/python3 \
    TUNELOOM_ENGINE_CACHE_DIR=/var/lib/tuneloom/engine \
    TUNELOOM_ENGINE_BLOB_CACHE_DIR=/var/lib/tuneloom/blobs \
    TUNELOOM_ENGINE_LOG_DIR=/var/lib/tuneloom/logs \
    TUNELOOM_ENGINE_SOCKET_DIR=/run/tuneloom
WORKDIR /var/lib/tuneloom
USER 10001:10001
EXPOSE 8010
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-m", "tuneloom_common.probe", "http://127.0.0.1:8010/healthz", "TUNELOOM_ENGINE_TLS_CERTIFICATE"]
ENTRYPOINT ["python3", "-m", "tuneloom_engine"]
