#!/bin/sh
# A development server that is replaced whenever a file is saved, without a refused request.
#
#     examples/laptop/reload.sh examples \
#         --listen web=tcp:127.0.0.1:8080 --ready notify -- python examples/http_hello.py
#
# First the directory to watch, then what `sockact run` takes. A program that was saved broken does
# not get ready, so the one before it goes on serving; what is wrong with it stands on the terminal.
# Needs watchfiles (from PyPI), watchexec, entr or inotifywait.
set -eu

files=$1
shift
directory=$(mktemp -d)
path=$directory/rendezvous

watch() {
    if python3 -c 'import watchfiles' 2>/dev/null; then
        exec python3 - "$files" "$path" <<'PYTHON'
import subprocess, sys, watchfiles
for _ in watchfiles.watch(sys.argv[1], watch_filter=watchfiles.PythonFilter()):
    subprocess.run(["sockact", "replace", sys.argv[2]])
PYTHON
    elif command -v watchexec >/dev/null; then
        exec watchexec --postpone --on-busy-update queue --watch "$files" --exts py \
            -- sockact replace "$path"
    elif command -v entr >/dev/null; then # sees no new files
        find "$files" -name '*.py' >"$directory/files"
        exec entr -n -p sockact replace "$path" <"$directory/files"
    else # does not see what is saved while it replaces
        trap 'kill $!; exit' TERM
        while :; do
            inotifywait -qq --recursive --include '\.py$' --event close_write,moved_to "$files" &
            wait $!
            sockact replace "$path" || :
        done
    fi
}

watch &
watcher=$!
sockact run --rendezvous "$path" "$@" &
server=$!
trap 'kill "$server"' INT TERM HUP
trap 'kill "$watcher"; rm -rf "$directory"' EXIT
while kill -0 "$server" 2>/dev/null; do # a signal ends the wait, not the server
    wait "$server" && status=0 || status=$?
done
exit "$status"
