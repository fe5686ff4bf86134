# syntax=docker/dockerfile:1
# The inference server for machines without a GPU: the same tritonserver and model repository, run by OpenVINO.
# Build from the repository's root:
#   docker build -f deploy/docker/triton-is-cpu.Dockerfile -t qsm-ai/triton-is-cpu .
# BASE_IMAGE needs Python 3.11 or 3.12 with its shared library and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONPATH=/build/src \
    QSM_TRITON_ENV=/triton
COPY requirements/triton.txt requirements/
# Without the package around it, which would ask for its own installation.
COPY src/qsm_ai/inference src/qsm_ai/inference
RUN python3 -m qsm_ai.inference.environment
# Of nvidia-pytriton only the server's binaries are used, not the library around them and what that asks for.
RUN python3 -m venv /tools \
    && pip="/tools/bin/python -m pip --python /triton/bin/python" \
    && $pip freeze --exclude numpy --exclude nvidia-pytriton --exclude openvino >unused.txt \
    && $pip uninstall --quiet --yes -r unused.txt \
    && $pip inspect --local >/triton/installed.json \
    && $pip uninstall --quiet --yes setuptools pip \
    && find /triton/lib -depth -type d -name tests -exec rm -r {} + \
    && rm -r /triton/lib/python3*/site-packages/openvino/include \
         /triton/lib/python3*/site-packages/pytriton/tritonserver/python_backend_stubs \
    && /triton/bin/python -m compileall -q -j 0 /triton/lib

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.title="qsm-ai triton-is-cpu" \
      org.opencontainers.image.description="Inference server of QSM-AI on CPUs. Research use, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /triton /triton
COPY model_repository /models
COPY deploy/docker/triton-cpu-entrypoint /usr/local/bin/
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    QSM_TRITON_ENV=/triton \
    QSM_MODEL_REPOSITORY=/models
USER 10001:10001
WORKDIR /tmp
# gRPC for the backend, HTTP for probes, metrics for Prometheus; all on the private network only.
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 \
    CMD ["/triton/bin/python", "-IS", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=8); c.request('GET', '/v2/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["triton-cpu-entrypoint"]
