#!/usr/bin/env bash
# From nothing to a trained model in containers, on the CPU; `make smoke`. The project and its volumes are its own.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=pipeline-smoke PIPELINE_TAG=smoke TENSORBOARD_PORT=${TENSORBOARD_PORT:-0} # 0: a free one
limit=$(command -v timeout >/dev/null && echo timeout 1800 || true) # for a broken engine, not for a slow one
compose() { $limit docker compose -f compose.yaml -f docker/compose.cpu.yaml "$@"; }
step() { printf '\nsmoke: %s\n' "$*" >&2; }
get() { # get PATH: from TensorBoard, as a browser on this machine would; nothing but bash is needed
  exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
  cat <&3
}

finish() {
  local code=$?
  [ $code -eq 0 ] || compose logs --tail 50 >&2
  step down
  compose down --volumes --rmi all >&2
  exit $code
}
trap finish EXIT
compose down --volumes >&2

step build
make --no-print-directory build
step up
compose up --detach --wait
address=$(compose port tensorboard 6006)

step "submit jobs/digits.yaml and wait"
id=$(compose --progress quiet run --rm cli submit --wait jobs/digits.yaml)
result=$(compose --progress quiet run --rm cli show "$id")
grep -v TensorBoard <<<"$result" # it says which port is published, and that is chosen by the engine here
grep -q '^outcome  *succeeded$' <<<"$result"
grep -q '^test accuracy  *9[0-9]\.' <<<"$result" # chance is 10 %

step "TensorBoard at $address"
for _ in $(seq 30); do # it looks for new runs every five seconds
  tags=$(get /data/plugin/scalars/tags)
  grep -q "$id.*test/accuracy" <<<"$tags" && break
  sleep 1
done
grep -q "$id.*test/accuracy" <<<"$tags"
step "passed: $id is trained, and TensorBoard serves its curves"
