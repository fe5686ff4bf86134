# syntax=docker/dockerfile:1
# The frontend: talks HTTP to the backend, holds no physics. Build from the repository's root:
#   docker build -f deploy/docker/streamlit-fe.Dockerfile -t qsm-ai/streamlit-fe .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /app
COPY requirements/build.txt requirements/node.txt requirements/ui.txt requirements/
RUN /app/bin/python -m pip install --require-hashes -r requirements/ui.txt \
    && python3 -m venv /tools \
    && /tools/bin/python -m pip install --require-hashes -r requirements/build.txt -r requirements/node.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# NiiVue, which draws volumes in the page; its versions and hashes stand in package-lock.json.
RUN PATH=/tools/bin:$PATH src/qsm_ai/ui/volume_view/fetch
# Of the package only the frontend is kept: what is not there cannot be imported by mistake.
RUN /tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /app/bin/python -m pip install --no-deps dist/*.whl \
    && /app/bin/python -m pip inspect --local >/app/installed.json \
    && /app/bin/python -m pip uninstall --yes setuptools pip \
    && find /app/lib/python3*/site-packages/qsm_ai -mindepth 1 -maxdepth 1 \
         ! -name ui ! -name __init__.py ! -name py.typed -exec rm -r {} + \
    && rm /app/bin/qsm-ai \
    && find /app/lib -depth -type d -name tests -exec rm -r {} + \
    && rm -r /app/lib/python3*/site-packages/pyarrow/include \
    && /app/bin/python -m compileall -q -j 0 /app/lib

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.title="qsm-ai streamlit-fe" \
      org.opencontainers.image.description="Frontend of QSM-AI: susceptibility maps from MRI phase. Research use, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /app /app
# Uploads are spooled to /tmp. Fargate gives an empty volume to root alone unless the image has a volume there, whose
# owner and mode it takes over.
RUN chmod 1777 /tmp
ENV PATH=/app/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8501 \
    STREAMLIT_SERVER_HEADLESS=true \
    STREAMLIT_SERVER_FILE_WATCHER_TYPE=none \
    STREAMLIT_SERVER_MAX_UPLOAD_SIZE=2048 \
    STREAMLIT_BROWSER_GATHER_USAGE_STATS=false \
    QSM_API_URL=http://fastapi-be:8000 \
    QSM_UI_METRICS_HOST=0.0.0.0 \
    QSM_UI_METRICS_PORT=8502
USER 10001:10001
WORKDIR /tmp
VOLUME /tmp
EXPOSE 8501 8502
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=4 \
    CMD ["python", "-IS", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8501, timeout=8); c.request('GET', '/_stcore/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "qsm_ai.ui"]
