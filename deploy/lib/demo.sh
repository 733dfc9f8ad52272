# deploy/lib/demo.sh: what a newcomer needs after the start - system keys,
# demo accounts, and the addresses.

hm_cli() {
    (
        # shellcheck disable=SC1091
        . "$HM_STATE/env"
        export HEALTHMATE_DEMO_PASSWORD
        "$HM_BUILD/healthmate" "$@"
    ) </dev/null 9>&-
}

hm_keys_init() {
    HEALTHMATE_DEMO_PASSWORD=
    hm_cli keys init >"$HM_LOGS/keys-init.log" 2>&1 \
        || { hm_tail keys-init; die "healthmate keys init failed"; }
}

# Only an empty database gets demo accounts; the variable resets their
# password later.
hm_demo() {
    HM_DEMO_PASSWORD=
    [ "$HM_DEMO" != off ] || return 0
    _file=$HM_STATE/demo-password
    _was=$(cat "$_file" 2>/dev/null || :)
    _wish=${HEALTHMATE_DEMO_PASSWORD:-}
    _people=$(hm_psql -d healthmate -c 'select count(*) from users')

    if [ "$_people" = 0 ]; then
        _wish=${_wish:-${_was:-demo-$(hm_random 8)}}
    elif [ -z "$_was" ]; then
        return 0    # a database with people, and none of them is ours
    elif [ -z "$_wish" ] || [ "$_wish" = "$_was" ]; then
        HM_DEMO_PASSWORD=$_was
        return 0
    fi
    HEALTHMATE_DEMO_PASSWORD=$_wish
    hm_cli demo create >"$HM_LOGS/demo.log" 2>&1 \
        || { hm_tail demo; die "healthmate demo create failed"; }
    (umask 077; printf '%s\n' "$_wish" >"$_file")
    HM_DEMO_PASSWORD=$_wish
}

hm_addresses() {
    echo "HealthMate is up."
    echo "  https://localhost:$HM_HTTPS_PORT  (certificate: $HM_HOME/cert.pem)"
    [ "$HM_HTTP_PORT" = off ] \
        || echo "  http://127.0.0.1:$HM_HTTP_PORT  (this machine only)"
    echo "  API documentation at /docs, OpenAPI at /openapi.json"
    if [ -n "$HM_DEMO_PASSWORD" ]; then
        echo "  demo accounts: patient@demo.local doctor@demo.local" \
            "admin@demo.local"
        echo "  demo password: $HM_DEMO_PASSWORD"
    fi
    echo "  settings for tools: . $HM_HOME/env     stop: deploy/down"
}
