# deploy/lib/nginx.sh: nginx with the module.  Its master starts its own
# workers again, so it needs no keeper; the .so is copied into the state
# because the source tree may be closed to hm-nginx.

hm_nginx_config() {
    _so=${HEALTHMATE_MODULE:-$HM_BUILD/ngx_http_healthmate_module.so}
    T_MODULE=$HM_STATE/nginx/ngx_http_healthmate_module.so
    # Renamed into place: a running nginx keeps the file it has mapped.
    cmp -s "$_so" "$T_MODULE" || {
        install -m 644 "$_so" "$T_MODULE.new"
        mv -f "$T_MODULE.new" "$T_MODULE"
    }

    T_USER= T_IPV6= T_PLAIN= T_DEMO= T_ES256= T_EDDSA=
    T_PRODUCTION= T_WAF= T_UNLIMITED=
    case $HM_JWT in ES256) T_ES256=1 ;; EdDSA) T_EDDSA=1 ;; esac
    export T_ES256 T_EDDSA
    if hm_is_production; then T_PRODUCTION=1; fi
    [ "$HM_WAF" = off ] || T_WAF=1
    [ "$HM_LIMITS" = on ] || T_UNLIMITED=1
    T_WAF_MODULE=/usr/lib/nginx/modules/ngx_http_modsecurity_module.so
    T_TICKETS=$HM_SOCK/tickets T_OPERATORS_PORT=$HM_OPERATORS_PORT
    T_CONF=$HM_STATE/nginx/conf T_SECURITY_CONTACT=$HM_CONTACT
    # Of acme.conf and ocsp.conf, which are for production.conf.example.
    T_ACME=$HM_STATE/acme T_ETC=$HM_STATE T_RESOLVER=127.0.0.53
    export T_PRODUCTION T_WAF T_UNLIMITED T_WAF_MODULE T_TICKETS \
        T_OPERATORS_PORT T_CONF T_SECURITY_CONTACT T_ACME T_ETC T_RESOLVER
    if hm_is_root; then T_USER="$U_NGINX $G_ALL"; fi
    if grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 \
        2>/dev/null
    then
        T_IPV6=1
    fi
    [ "$HM_HTTP_PORT" = off ] || T_PLAIN=1
    [ "$HM_DEMO" = off ] || T_DEMO=on
    # As many descriptors as we may have, up to what 8192 connections need.
    T_NOFILE=$(ulimit -H -n)
    case $T_NOFILE in unlimited) T_NOFILE=65536 ;; esac
    [ "$T_NOFILE" -lt 65536 ] || T_NOFILE=65536
    T_BIND6=
    if [ "$HM_BIND" = 127.0.0.1 ]; then T_BIND6=$T_IPV6; fi
    case $HM_BIND in
    *:*) T_BIND="[$HM_BIND]" ;;
    *) T_BIND=$HM_BIND ;;
    esac
    T_HTTP_PORT=$HM_HTTP_PORT T_HTTPS_PORT=$HM_HTTPS_PORT
    T_WORKERS=$HM_NGINX_WORKERS T_PIDS=$HM_PIDS T_LOGS=$HM_LOGS
    T_TLS=$HM_STATE/tls T_KEYS=$HM_KEYS T_TEMP=$HM_STATE/nginx/temp
    T_SOCKETS=$HM_SOCK T_KEY=$HM_KEY T_LIMITS=$HM_LIMITS
    T_FINGERPRINT=$HM_FINGERPRINT T_AUDIT=$HM_AUDIT
    T_ADMIN_PHI=$HM_ADMIN_PHI T_REGISTER=$HM_REGISTER
    T_CARE_ASSIGN=$HM_CARE_ASSIGN
    T_ENVIRONMENT=$HM_ENVIRONMENT T_MFA_REQUIRED=$HM_MFA_REQUIRED
    T_WEB=$HM_STATE/nginx/web
    T_ORIGINS=https://localhost:$HM_HTTPS_PORT
    [ -z "$T_PLAIN" ] || T_ORIGINS="$T_ORIGINS http://localhost:$HM_HTTP_PORT"
    export T_MODULE T_USER T_IPV6 T_BIND6 T_PLAIN T_DEMO T_BIND T_HTTP_PORT \
        T_HTTPS_PORT T_WORKERS T_PIDS T_LOGS T_TLS T_KEYS T_TEMP T_SOCKETS \
        T_KEY T_LIMITS T_FINGERPRINT T_AUDIT T_ADMIN_PHI T_REGISTER \
        T_CARE_ASSIGN T_ENVIRONMENT T_NOFILE T_MFA_REQUIRED T_WEB T_ORIGINS

    mkdir -p "$HM_STATE/nginx/conf" "$HM_STATE/nginx/temp" "$T_WEB"
    cp -R "$HM_ROOT"/web/. "$T_WEB/"
    chmod -R a+rX "$T_WEB"
    for _f in "$HM_ROOT"/lua-free-conf/*.conf; do
        render "$_f" "$HM_STATE/nginx/conf/$(basename "$_f")"
    done
}

hm_nginx_run() {
    hm_bare "$HM_NGINX" -p "$HM_STATE/nginx/" \
        -c "$HM_STATE/nginx/conf/nginx.conf" -e "$HM_LOGS/error.log" "$@"
}

hm_nginx_up() {
    hm_nginx_config
    _sum=$(cat "$HM_STATE"/nginx/conf/*.conf "$HM_STATE/tls/cert.pem" \
        "$HM_KEYS/kek" "$HM_KEYS"/jwt-* | hm_sum "$(cksum <"$HM_NGINX")" \
        "$(sha256sum <"$T_MODULE")")
    if hm_pid "$HM_PIDS/nginx.pid" >/dev/null \
        && [ "$(cat "$HM_PIDS/nginx.sum" 2>/dev/null)" = "$_sum" ]
    then
        return 0
    fi
    if ! _said=$(hm_nginx_run -t -q </dev/null 2>&1); then
        printf '%s\n' "$_said" >&2
        die "nginx refuses its configuration"
    fi
    hm_nginx_stop
    (cd / && hm_nginx_run) </dev/null >>"$HM_LOGS/nginx.log" 2>&1 \
        || { hm_tail nginx; die "nginx does not start"; }
    printf '%s' "$_sum" >"$HM_PIDS/nginx.sum"
}

# Graceful first: answers under way are finished.
hm_nginx_stop() {
    if _d=$(hm_pid "$HM_PIDS/nginx.pid"); then
        kill -QUIT "$_d" 2>/dev/null || :
        hm_wait_gone "$_d" 10 || kill -TERM "$_d" 2>/dev/null || :
        hm_wait_gone "$_d" 5 || kill -KILL "$_d" 2>/dev/null || :
    fi
    rm -f "$HM_PIDS/nginx.pid" "$HM_PIDS/nginx.sum"
}
