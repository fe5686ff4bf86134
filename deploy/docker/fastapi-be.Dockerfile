# syntax=docker/dockerfile:1
# The backend: gateway, physics, jobs. Build from the repository's root:
#   docker build -f deploy/docker/fastapi-be.Dockerfile -t qsm-ai/fastapi-be .
# BASE_IMAGE may be anything with Python 3.11 or 3.12 and its venv module; release builds name it by digest.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /app
COPY requirements/build.txt requirements/backend.txt requirements/
RUN /app/bin/python -m pip install --require-hashes -r requirements/backend.txt \
    && python3 -m venv /tools && /tools/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /app/bin/python -m pip install --no-deps dist/*.whl \
    && /app/bin/python -m pip inspect --local >/app/installed.json \
    && /app/bin/python -m pip uninstall --yes setuptools pip \
    && find /app/lib -depth -type d -name tests -exec rm -r {} + \
    && /app/bin/python -m compileall -q -j 0 /app/lib

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.title="qsm-ai fastapi-be" \
      org.opencontainers.image.description="Backend of QSM-AI: susceptibility maps from MRI phase. Research use, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /app /app
# Everything that changes lives under /data (a volume) and /tmp, so the root file system may be read-only.
# Fargate gives an empty volume to root alone unless the image has a volume there, whose owner and mode it takes over.
RUN mkdir /data && chown 10001:10001 /data && chmod 1777 /tmp
ENV PATH=/app/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    QSM_HOST=0.0.0.0 \
    QSM_PORT=8000 \
    QSM_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/tmp"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "-IS", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=8); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "qsm_ai.api"]
