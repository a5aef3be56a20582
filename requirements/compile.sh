#!/bin/sh
# Write the lock files anew: exact versions and hashes, for every platform, without naming an index.
# Needs `uv` on the PATH. `sh requirements/compile.sh --upgrade` takes newer versions.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1
    shift
    uv pip compile pyproject.toml requirements/build.in "$@" --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --no-annotate --no-strip-extras --quiet --output-file "requirements/$out.txt"
}
lock run --extra embedded --extra tunnel --extra s3 "$@"
lock dev --extra embedded --extra tunnel --extra s3 --extra dev --constraint requirements/run.txt "$@"
lock bench --extra embedded --extra tunnel --extra s3 --extra dev --extra bench --constraint requirements/dev.txt "$@"
