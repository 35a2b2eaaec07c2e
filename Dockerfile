# syntax=docker/dockerfile:1
# The router as an image: two stages, a user of its own, a file system that may be read-only (DATA_DIR and /tmp excepted).

# A multi-arch index (amd64, arm64...), pinned; the tag says what it is.
ARG PYTHON_IMAGE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/ai-router
COPY requirements.txt ./
RUN /opt/ai-router/bin/pip install --require-hashes --no-deps -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# What ai-router learn begins with; datasets/test is not part of the package.
COPY datasets/train ./datasets/train
COPY datasets/calibration ./datasets/calibration
RUN /opt/ai-router/bin/pip install --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="ai-router" \
      org.opencontainers.image.description="A self-hosted, OpenAI-compatible routing proxy" \
      org.opencontainers.image.licenses="MIT"
# libgomp: llama.cpp's threads. Remove it along with the embedded model, if you build an image without.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /home/ai-router --shell /usr/sbin/nologin ai-router \
    && install --directory --owner=ai-router --group=ai-router --mode=0700 /data
COPY --from=build /opt/ai-router /opt/ai-router
ENV PATH=/opt/ai-router/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    DATA_DIR=/data
USER ai-router
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Asks nobody but the router: a backend that is down must not get the router restarted.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
# Streams are let finish; docker's own patience (10 s) has to be raised to make use of it: see stop_grace_period in compose.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ai-router"]
CMD ["serve"]
