#!/usr/bin/env bash
# The environment of the embedded home, for the Makefile: install.sh FOLDER [cuda|cpu] installs requirements.lock there.
#
# cpu is PyTorch's own build without CUDA. Its index is known to uv, which is asked for these two packages alone; all
# others come from the lock, with their hashes, either way. FOLDER/.torch has the kind; the Makefile's mark says it is whole.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1
was=$(cat "$venv/.torch" 2>/dev/null || echo cuda)
kind=${2:-$was} # an environment is brought up to date as what it is
uv=0.13.9       # whose --torch-backend knows where PyTorch's own builds are
cuda_alone='^(torch|torchvision|triton|(cuda|nvidia)-[a-z0-9-]+)=='
case $kind in
cpu) gigabytes=2 ;; # on Linux
*) gigabytes=6.5 ;;
esac
export PIP_DISABLE_PIP_VERSION_CHECK=1

main() {
  echo "installing the pinned dependencies into $venv (some $gigabytes GB, once)" >&2
  if [ "$kind" = cuda ] && [ "$(uname)" = Linux ] && ! [ -e /proc/driver/nvidia ] && ! command -v nvidia-smi >/dev/null; then
    echo "there is no NVIDIA GPU here: with TORCH=cpu, as in make demo TORCH=cpu, it is some 2 GB" >&2
  fi
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if ! [ -x "$venv/bin/pip" ] || [ "$was" != "$kind" ]; then
    "${PYTHON:-python3}" -m venv --clear "$venv"
  fi
  echo "$kind" >"$venv/.torch"
  forget_halves
  TMPDIR=$(cd "$venv" && pwd)/tmp # where pip keeps what it downloads: there is room, and it can be measured
  export TMPDIR
  rm -rf "$TMPDIR"
  mkdir "$TMPDIR"
  show_progress &
  progress=$!
  "install_$kind" 2>&1 | while IFS= read -r line; do
    say "$line"
  done
}

forget_halves() { # what a killed pip has left: RECORD comes last, and without it pip would take the package for whole
  local info
  for info in "$venv"/lib/python*/site-packages/*.dist-info; do
    [ -e "$info/RECORD" ] || rm -rf "$info"
  done
}

install_cuda() {
  install --require-hashes --requirement requirements.lock && install_program
}

install_cpu() {
  install "uv==$uv" &&
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --torch-backend cpu \
      "torch==$(version_of torch)" "torchvision==$(version_of torchvision)" &&
    awk -v left_out="$cuda_alone" '/^[a-z]/ { skip = $0 ~ left_out } !skip' requirements.lock >"$TMPDIR/others.lock" &&
    install --no-deps --require-hashes --requirement "$TMPDIR/others.lock" && install_program
}

install() { "$venv/bin/python" -m pip install --quiet "$@"; }

install_program() { install --no-build-isolation --no-deps --editable .; }

version_of() { sed -n "s/^$1==\([^ ;]*\).*/\1/p" requirements.lock; }

say() { # a line that takes the place of the progress
  ! on_terminal || printf '\r\033[K' >&2
  printf '%s\n' "$1" >&2
}

on_terminal() { [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; }

show_progress() { # until it is ended: on a terminal in place, else a line every half minute, as a sign of life
  local turn=0 line
  while sleep 2 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    turn=$((turn + 1))
    if on_terminal; then
      line=$(progress_line) && printf '\r\033[K%s' "$line" >&2
    elif [ $((turn % 15)) -eq 0 ]; then
      progress_line >&2
    fi
  done
}

progress_line() { # pip downloads everything before it installs the first package
  local installed
  installed=$(kilobytes "$venv/lib")
  if [ "$installed" -lt 100000 ]; then
    awk -v size="$(kilobytes "$TMPDIR")" 'BEGIN { printf "downloading: %.1f GB\n", size / 1e6 }'
  else
    awk -v size="$installed" -v all="$gigabytes" 'BEGIN { printf "installing: %.1f of some %s GB\n", size / 1e6, all }'
  fi
}

kilobytes() { du -sk "$1" 2>/dev/null | cut -f 1 || true; } # files come and go while it looks

finish() { # after Ctrl-C, too
  local code=$?
  trap - EXIT INT TERM
  if [ -n "${progress:-}" ]; then
    kill "$progress" 2>/dev/null || true
    wait "$progress" 2>/dev/null || true
    ! on_terminal || printf '\r\033[K' >&2
    rm -rf "$TMPDIR"
  fi
  [ $code -eq 0 ] || echo "the installation is not complete; the same command goes on with it" >&2
  exit $code
}

main
