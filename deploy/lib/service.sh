# deploy/lib/service.sh: start, look at and stop one service.
#
# A service is HM_PIDS/NAME.keeper (the loop), NAME.pid (the daemon) and
# NAME.sum (a hash of what it was started with).  Starting one that runs with
# the same sum does nothing, so a second deploy/up is quick; another sum
# means a restart.

hm_sum() { { printf '%s\n' "$@"; cat; } | sha256sum | cut -c1-64; }

hm_running() {    # name sum
    hm_pid "$HM_PIDS/$1.keeper" >/dev/null || return 1
    hm_pid "$HM_PIDS/$1.pid" >/dev/null || return 1
    [ "$(cat "$HM_PIDS/$1.sum" 2>/dev/null)" = "$2" ]
}

# Becomes a command with descriptors 0..2 only: call it in a subshell.  sh cannot name those above 9,
# and a caller may have left one open on its own output.
hm_bare() {
    exec python3 -c 'import os, sys
os.closerange(3, 65536)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

hm_start() {    # name sum stop-signal user command...
    _name=$1 _sum=$2 _sig=$3 _user=$4
    shift 4
    hm_stop "$_name" "$_sig" 30
    _log=$HM_LOGS/$_name.log
    # Nothing of the caller's: no terminal, no pipe, no lock.
    if hm_is_root; then
        set -- setpriv --reuid "$_user" --regid "$_user" --init-groups \
            --no-new-privs -- "$@"
    fi
    (
        cd /
        hm_bare setsid "$HM_STATE/bin/keeper" "$_name" "$HM_PIDS" "$_sig" \
            "$@"
    ) </dev/null >>"$_log" 2>&1 &
    printf '%s' "$_sum" >"$HM_PIDS/$_name.sum"
}

hm_stop() {    # name stop-signal seconds
    if _k=$(hm_pid "$HM_PIDS/$1.keeper"); then
        kill -TERM "$_k" 2>/dev/null || :
        hm_wait_gone "$_k" "$3" || {
            say "$1 does not stop: killed"
            kill -KILL "$_k" 2>/dev/null || :
        }
    fi
    # The keeper is gone (or was killed by someone); so must be the daemon.
    if _d=$(hm_pid "$HM_PIDS/$1.pid"); then
        kill -s "$2" "$_d" 2>/dev/null || :
        hm_wait_gone "$_d" "$3" || kill -KILL "$_d" 2>/dev/null || :
    fi
    rm -f "$HM_PIDS/$1.keeper" "$HM_PIDS/$1.pid" "$HM_PIDS/$1.sum"
}

# Someone removed the state folder under a running stack: its processes
# still hold the sockets and ports.  They are known by their own folder's
# exact path in their command line.
hm_stop_orphans() {
    [ ! -s "$HM_PIDS/postgres.keeper" ] || return 0
    for _sig in TERM KILL; do
        _found=
        for _c in /proc/[0-9]*/cmdline; do
            case $(tr '\0' ' ' 2>/dev/null <"$_c") in
            "/bin/sh $HM_STATE/bin/keeper "*) ;;
            *"/postgres -D $HM_STATE/pg "*) ;;
            "nginx: master process "*" -p $HM_STATE/nginx/ "*) ;;
            *"redis-server unixsocket:$HM_SOCK/"*) ;;
            *) continue ;;
            esac
            _p=${_c#/proc/}
            _p=${_p%/cmdline}
            [ "$_p" != $$ ] || continue
            kill -s $_sig "$_p" 2>/dev/null && _found="$_found $_p" || :
        done
        [ -n "$_found" ] || return 0
        say "stopping what ran from an earlier $HM_HOME:$_found"
        for _p in $_found; do hm_wait_gone "$_p" 20 || :; done
    done
}

hm_tail() {    # name: why it does not come up
    say "the last lines of $HM_LOGS/$1.log:"
    tail -n 15 "$HM_LOGS/$1.log" >&2 2>/dev/null || :
}
