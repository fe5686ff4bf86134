# Sourced by images-check: compose.yaml as it is shipped, with the profile cpu, by podman. The proxy is Debian's nginx in
# place of the image that cannot be had. What is promised of containers is looked at from inside and from outside.
# shellcheck shell=bash disable=SC2154

echo "Installing podman-compose"
python3 -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
  -r requirements/images.txt
build docker.io/nginxinc/nginx-unprivileged:1.29-alpine deploy/check/proxy.Dockerfile

project=qsm-ai-check
port=$(free_port)
door=http://127.0.0.1:$port
export QSM_REGISTRY=localhost/qsm-ai QSM_VERSION=check QSM_PUBLIC_PORT=$port COMPOSE_PROFILES=cpu
compose() {
  "$work/tools/bin/podman-compose" --project-name "$project" --file deploy/compose.yaml --profile cpu "$@"
}
container() { podman ps --all --quiet --filter "label=com.docker.compose.project=$project" \
  --filter "label=com.docker.compose.service=$1" | head -n 1; }
stop_all() {
  compose down --volumes --timeout 20
  podman rm --all --force --time 5
  podman network prune --force
}
wrong() {
  echo "Wrong: $*" >&2
  for tier in triton-is-cpu fastapi-be streamlit-fe proxy; do
    echo "--- $tier" >&2
    podman logs --tail 15 "$(container "$tier")" >&2 2>&1 || true
  done
  exit 1
}
seconds() { date +%s; }
# As an engine would, which asks again before it gives up.
is_healthy() {
  for _ in $(seq 60); do
    if podman healthcheck run "$1" >"$work/health.log" 2>&1; then return; fi
    sleep 1
  done
  return 1
}

echo "Starting compose.yaml"
compose up --detach --no-build >"$work/compose.log" 2>&1 || { tail -n 30 "$work/compose.log" >&2; wrong "compose up"; }
until_answers "$door/readyz" "$door/_stcore/health" || wrong "the tiers do not get ready"

triton=$(container triton-is-cpu) backend=$(container fastapi-be) frontend=$(container streamlit-fe)
for tier in triton-is-cpu fastapi-be streamlit-fe proxy; do
  id=$(container "$tier")
  is_healthy "$id" || wrong "$tier's health check"
  [ "$(podman exec "$id" id -u)" -ne 0 ] || wrong "$tier runs as root"
  podman exec "$id" grep -q '^CapEff:.0*$' /proc/1/status || wrong "$tier has capabilities"
  podman exec "$id" grep -q '^NoNewPrivs:.1$' /proc/1/status || wrong "$tier may gain privileges"
  ! podman exec "$id" sh -c 'echo >/written' 2>/dev/null || wrong "$tier can write to its root"
  [ "$(podman inspect --format '{{.HostConfig.Memory}}' "$id")" -gt 0 ] || wrong "$tier has no limit of memory"
done
echo "Each tier is healthy by its own check, nobody's user, without capabilities, on a read-only root"

# The private network: Triton answers on it, not on the proxy's other one, and leads nowhere.
ask() { podman run --rm --network "$1" localhost/qsm-ai/base curl --silent --fail --max-time 5 --output /dev/null "$2"; }
ask "${project}_private" http://triton-is:8000/v2/health/ready || wrong "Triton does not answer inside"
! ask "${project}_edge" http://triton-is:8000/v2/health/ready || wrong "Triton answers on the edge"
address=$(podman inspect --format "{{(index .NetworkSettings.Networks \"${project}_private\").IPAddress}}" "$triton")
! ask "${project}_edge" "http://$address:8000/v2/health/ready" || wrong "Triton answers across networks"
for tier in "$triton" "$frontend"; do
  ! podman exec "$tier" python3 -c 'import socket; socket.create_connection(("1.1.1.1", 443), 3)' 2>/dev/null ||
    wrong "the private network leads out"
done
[ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$door/v2/health/ready")" = 404 ] || wrong "/v2 is served"
echo "Triton is reached from the private network alone, and nothing on it reaches out"

job=$(submit "$door") || wrong "the sample is not taken"
for _ in $(seq 120); do [ "$(state "$door" "$job")" != running ] || break; sleep 0.5; done
[ "$(state "$door" "$job")" = running ] || wrong "the job is $(state "$door" "$job") before the backend is told to end"
began=$(seconds)
podman stop --time 60 "$backend" >/dev/null 2>&1
took=$(($(seconds) - began))
code=$(podman inspect --format '{{.State.ExitCode}}' "$backend")
[ "$code" -ne 137 ] && [ "$took" -le 60 ] || wrong "the backend was killed after $took s (exit status $code)"
echo "Told to end while a job ran, the backend ended within $took s with $code"
podman start "$backend" >/dev/null
until_answers "$door/readyz" || wrong "the backend does not come back"
until_done "$door" "$job" || wrong "the job after the restart"
agrees "$door" "$job" || wrong "the map"
echo "Started again, it finished the job"

echo "The process that runs the network is killed"
condition() { podman inspect --format '{{.RestartCount}} {{.State.Running}}' "$triton"; }
before=$(condition)
podman exec "$triton" python3 -c '
import os, signal
from pathlib import Path
for entry in Path("/proc").glob("[0-9]*"):
    if (entry / "cmdline").read_bytes().split(b"\0")[0].endswith(b"python_backend_stub"):
        os.kill(int(entry.name), signal.SIGKILL)'
for _ in $(seq 120); do [ "$(condition)" = "$before" ] || break; sleep 0.5; done
[ "$(condition)" != "$before" ] || wrong "Triton goes on without its model"
sleep 5
if [ "$(podman inspect --format '{{.State.Running}}' "$triton")" != true ]; then
  [ "$(podman inspect --format '{{.State.ExitCode}}' "$triton")" = 1 ] || wrong "Triton ends as if nothing had happened"
  # An engine with an environment of its own, as here, does not always find its own restart policy.
  podman start "$triton" >/dev/null
fi
is_healthy "$triton" || wrong "Triton does not come back"
until_answers "$door/readyz" || wrong "the service does not come back"
echo "The container ended with a failure; started again, the service is ready"

for tier in triton-is-cpu streamlit-fe proxy; do
  id=$(container "$tier")
  began=$(seconds)
  podman stop --time 30 "$id" >/dev/null 2>&1
  code=$(podman inspect --format '{{.State.ExitCode}}' "$id")
  [ "$code" -ne 137 ] || wrong "$tier does not end when told to"
  echo "$tier ended within $(($(seconds) - began)) s of the signal, with $code"
done
