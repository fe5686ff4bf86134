# Sourced by images-check: the tiers as chroots. They share this machine's network, so each listens on 127.0.0.1 and on a
# port of its own. File systems are writable and users are kept, so little of the containers' guard is shown.
# shellcheck shell=bash disable=SC2154

pids=()
set -m
stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
start() {
  local image=$1 from variables=()
  shift
  from=$(buildah from "localhost/qsm-ai/$image:check")
  while [ "$1" != -- ]; do
    variables+=(--env "$1")
    shift
  done
  shift
  echo "Starting $image"
  buildah run "${variables[@]}" "$from" -- "$@" >"$work/$image.log" 2>&1 &
  pids+=($!)
}

http=$(free_port) grpc=$(free_port) metrics=$(free_port) api=$(free_port) page=$(free_port)
start triton-is-cpu QSM_TRITON_HOST=127.0.0.1 "QSM_TRITON_HTTP_PORT=$http" "QSM_TRITON_GRPC_PORT=$grpc" \
  "QSM_TRITON_METRICS_PORT=$metrics" -- triton-cpu-entrypoint
start fastapi-be QSM_HOST=127.0.0.1 "QSM_PORT=$api" "QSM_TRITON_URL=127.0.0.1:$grpc" -- python -m qsm_ai.api
start streamlit-fe "QSM_API_URL=http://127.0.0.1:$api" STREAMLIT_SERVER_ADDRESS=127.0.0.1 \
  "STREAMLIT_SERVER_PORT=$page" QSM_UI_METRICS_PORT=0 -- python -m qsm_ai.ui
until_answers "http://127.0.0.1:$http/v2/health/ready" "http://127.0.0.1:$api/readyz" \
  "http://127.0.0.1:$page/_stcore/health" || { tail -n 20 "$work"/*.log >&2; exit 1; }
job=$(submit "http://127.0.0.1:$api")
until_done "http://127.0.0.1:$api" "$job"
agrees "http://127.0.0.1:$api" "$job"
