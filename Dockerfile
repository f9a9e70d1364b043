# The image: the program in an environment of its own, on a base with Python 3.11 that you choose.
# Build: docker build -t registry.example.com/video-gateway .
# Run:   docker run --read-only --tmpfs /tmp -v gateway:/data -p 8080:8080 \
#            -e GATEWAY_UPSTREAM_API_KEY video-gateway
# Pin the base by its digest: --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
COPY requirements.lock.txt .ci/build.lock.txt ./
# The environment has no pip: the one that builds fills it. Only wheels, and only those whose hash is
# known; no package's own code is run.
RUN python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r build.lock.txt \
    && python3 -m venv --without-pip /opt/video-gateway \
    && tools/bin/pip --python /opt/video-gateway/bin/python install --no-cache-dir \
        --only-binary=:all: --require-hashes -r requirements.lock.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/video-gateway/bin/python install --no-cache-dir --no-deps \
        --no-index wheels/*.whl

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="video-gateway" \
      org.opencontainers.image.description="An OpenAI-compatible caching and accounting gateway for /v1/videos" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/video-gateway /opt/video-gateway
# A volume that is mounted for the first time takes its owner from here.
RUN install -d -o 10001 -g 10001 -m 0700 /data
ENV PATH=/opt/video-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
# Relative paths, as the defaults of database_url and store_url are, lead to /data.
WORKDIR /
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# No shell in between: the process itself gets SIGTERM. Health is for the orchestrator to ask for, on
# 9090: /livez, /readyz.
ENTRYPOINT ["video-gateway"]
# Flags and not variables, which would count more than a file that is mounted.
CMD ["serve", "--host", "0.0.0.0", "--ops-host", "0.0.0.0"]
