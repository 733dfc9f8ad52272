# deploy/lib/edge.sh: around nginx - keys of session tickets, rotation of
# logs, and the process that sees to both (deploy/lib/chores).
#
# Ticket keys lie beside the sockets, below /run, which is memory.

hm_edge_prepare() {
    HM_TICKETS=$HM_SOCK/tickets
    for _f in tickets chores; do
        install -m 755 "$HM_ROOT/deploy/lib/$_f" "$HM_STATE/bin/$_f.new"
        mv -f "$HM_STATE/bin/$_f.new" "$HM_STATE/bin/$_f"
    done
    hm_folder "$HM_TICKETS" root root 700
    "$HM_STATE/bin/tickets" "$HM_TICKETS" init || [ $? = 3 ] \
        || die "no ticket keys in $HM_TICKETS"
    T_LOGS=$HM_LOGS T_PIDS=$HM_PIDS
    export T_LOGS T_PIDS
    render "$HM_ROOT/deploy/conf/logrotate.conf" "$HM_CONF/logrotate.conf"
    # logrotate refuses what others could write.
    chmod 644 "$HM_CONF/logrotate.conf"
}

hm_chores_up() {
    set -- "$HM_STATE/bin/chores" "$HM_STATE" "$HM_SOCK/tickets" \
        "$HM_PIDS/nginx.pid" "$HM_CONF/logrotate.conf"
    _sum=$(cat "$HM_STATE/bin/chores" "$HM_STATE/bin/tickets" \
        "$HM_CONF/logrotate.conf" | hm_sum "$@" \
        "${HEALTHMATE_CHORES_PAUSE:-}" "${HEALTHMATE_TICKET_HOURS:-}")
    if hm_running chores "$_sum"; then return 0; fi
    hm_start chores "$_sum" TERM "$(id -un)" "$@"
}
